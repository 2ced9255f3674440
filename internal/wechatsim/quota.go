package wechatsim

import (
	"strings"
	"sync"
	"time"
)

const (
	clearsPerMonth     = 10 // clear_quota, reference §11
	pathClearsPerMonth = 50 // openapi/quota/clear
)

// quotaDay numbers the days of China time, at whose midnight the counters are taken to restart (not
// documented).
func quotaDay(now time.Time) int64 { return (now.Unix() + 8*3600) / 86400 }

// quota counts an account's calls against its limits.
type quota struct {
	mu         sync.Mutex
	used       []usage // by endpoint.index
	clears     map[string]int
	pathClears map[string]int
}

type usage struct {
	daily, perMinute int64 // limits; 0: none
	day, minute      int64
	used, thisMinute int64
}

func (q *quota) init(endpoints int, daily map[int]int64, perMinute map[int]int64) {
	q.used = make([]usage, endpoints)
	q.clears, q.pathClears = make(map[string]int), make(map[string]int)
	for i, limit := range daily {
		q.used[i].daily = limit
	}
	for i, limit := range perMinute {
		q.used[i].perMinute = limit
	}
}

// charge counts one call and returns 45009 or 45011 if it is one too many.
func (q *quota) charge(endpoint int, now time.Time) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	u := &q.used[endpoint]
	u.roll(now)
	switch {
	case u.daily > 0 && u.used >= u.daily:
		return 45009
	case u.perMinute > 0 && u.thisMinute >= u.perMinute:
		return 45011
	}
	u.used++
	u.thisMinute++
	return 0
}

func (u *usage) roll(now time.Time) {
	if day := quotaDay(now); u.day != day {
		u.day, u.used = day, 0
	}
	if minute := now.Unix() / 60; u.minute != minute {
		u.minute, u.thisMinute = minute, 0
	}
}

// dailyLimits gives an account the documented figures. An account with more than 100,000 or
// 1,000,000 followers has ten or a hundred times as much of what is sent or listed: the one figure
// known of a raised account is 1,000,000 sends.
func (s *Server) dailyLimits(followers int, over map[string]int64) map[int]int64 {
	raise := int64(1)
	for _, tier := range []int{100_000, 1_000_000, 10_000_000} {
		if followers >= tier {
			raise *= 10
		}
	}
	limits := make(map[int]int64)
	for path, e := range s.endpoints {
		limits[e.index] = e.daily
		if path == pathSend || path == pathUserGet {
			limits[e.index] *= raise
		}
		if limit, ok := over[path]; ok {
			limits[e.index] = limit
		}
	}
	return limits
}

func (s *Server) byIndex(limits map[string]int64) map[int]int64 {
	indexed := make(map[int]int64, len(limits))
	for path, limit := range limits {
		if e := s.endpoints[path]; e != nil {
			indexed[e.index] = limit
		}
	}
	return indexed
}

// NoDailyLimits is a value for [Account] and [Mini] that lifts every daily limit, for benchmarks.
func NoDailyLimits() map[string]int64 {
	endpoints, _ := newEndpoints()
	limits := make(map[string]int64, len(endpoints))
	for path := range endpoints {
		limits[path] = 0
	}
	return limits
}

// SetDailyLimit changes how many calls a day a path has for an account; 0: no limit.
func (s *Server) SetDailyLimit(appid, path string, limit int64) {
	q := &s.mustApp(appid).quota
	q.mu.Lock()
	defer q.mu.Unlock()
	if e := s.endpoints[path]; e != nil {
		q.used[e.index].daily = limit
	}
}

type quotaFigures struct {
	DailyLimit int64 `json:"daily_limit"`
	Used       int64 `json:"used"`
	Remain     int64 `json:"remain"`
}

type rateFigures struct {
	CallCount     int64 `json:"call_count"`
	RefreshSecond int64 `json:"refresh_second"`
}

type quotaAnswer struct {
	ErrCode   int          `json:"errcode"`
	ErrMsg    string       `json:"errmsg"`
	Quota     quotaFigures `json:"quota"`
	RateLimit *rateFigures `json:"rate_limit,omitempty"`
}

// target reads the cgi_path of a request about quotas.
func (c *call) target() *endpoint {
	var request struct {
		CGIPath string `json:"cgi_path"`
	}
	if !c.bind(&request) {
		return nil
	}
	e := c.s.endpoints[request.CGIPath]
	switch {
	case strings.HasPrefix(request.CGIPath, "/sns/"):
		c.fail(76022)
	case e == nil:
		c.fail(76021)
	case e.auth == authOfficial && c.app.mini, e.auth == authMini && !c.app.mini:
		c.fail(76022)
	default:
		return e
	}
	return nil
}

func (c *call) quotaGet() {
	e := c.target()
	if e == nil {
		return
	}
	q := &c.app.quota
	q.mu.Lock()
	defer q.mu.Unlock()
	u := &q.used[e.index]
	u.roll(c.now)
	answer := quotaAnswer{ErrMsg: "ok",
		Quota: quotaFigures{u.daily, u.used, max(0, u.daily-u.used)}}
	if u.daily == 0 { // no limit is told as a very large one: the platform has no notation for none
		answer.Quota = quotaFigures{1 << 40, u.used, 1<<40 - u.used}
	}
	if u.perMinute > 0 {
		answer.RateLimit = &rateFigures{u.perMinute, 60}
	}
	c.json(answer)
}

func (c *call) quotaClear() {
	e := c.target()
	if e == nil {
		return
	}
	q := &c.app.quota
	q.mu.Lock()
	defer q.mu.Unlock()
	if !spend(q.pathClears, c.now, pathClearsPerMonth) {
		c.fail(48006)
		return
	}
	q.used[e.index].used = 0
	c.ok()
}

func (c *call) clearQuota() {
	var request struct {
		AppID string `json:"appid"`
	}
	if !c.bind(&request) {
		return
	}
	if request.AppID != c.app.id {
		c.fail(40013)
		return
	}
	c.clearAll()
}

func (c *call) clearQuotaV2() {
	if c.credentials(c.query("appid"), c.query("appsecret")) {
		c.clearAll()
	}
}

func (c *call) clearAll() {
	q := &c.app.quota
	q.mu.Lock()
	defer q.mu.Unlock()
	if !spend(q.clears, c.now, clearsPerMonth) {
		c.fail(48006)
		return
	}
	for i := range q.used {
		q.used[i].used = 0
	}
	c.ok()
}

// spend takes one of a month's allowance.
func spend(months map[string]int, now time.Time, allowed int) bool {
	month := now.UTC().Add(8 * time.Hour).Format("2006-01")
	if months[month] >= allowed {
		return false
	}
	months[month]++
	return true
}
