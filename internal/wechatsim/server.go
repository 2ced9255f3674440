package wechatsim

import (
	"cmp"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Server is the simulated platform. It is an [http.Handler]; all methods are safe for concurrent
// use. [Server.Close] ends the goroutines of its event pushes.
type Server struct {
	seed      uint64
	keep      Keep
	clock     func() time.Time
	apps      map[string]*app
	order     []*app // as configured: official accounts, then mini programs
	endpoints map[string]*endpoint
	texts     map[int]string // errmsg by errcode
	unknown   *endpoint      // counts the calls to paths that do not exist
	tokens    tokenTable
	faults    faultList
	rids      ridLog
	pushes    *pusher
	control   http.Handler
	latency   atomic.Int64
	repeats   time.Duration // of Options.RepeatWindow
	draws     atomic.Uint64
	messages  atomic.Int64
	platforms atomic.Int64 // numbers handed out by Rebind
	calls     sync.Pool
	underWay  sync.Map // openids to whom a subscribe message is being sent
}

// app is an official account or a mini program: what has an appid, a secret and tokens.
type app struct {
	id, secret, original string
	mini                 bool
	ids                  *idCodec
	unions               atomic.Pointer[idCodec] // nil: bound to no Open Platform account
	tokens               tokens
	quota                quota
	whitelist            atomic.Pointer[[]string]
	quirks               atomic.Pointer[Quirks]
	callback             atomic.Pointer[Callback]
	templates            []*template
	followers            *roster // official accounts
	users                users   // mini programs
	codes                usedCodes
	pages                map[string]bool // nil: any
	noMsgID              bool
	store                store
	people               personFlags
	grants               grants
}

// New builds a platform. It panics on two accounts with one appid, which is a mistake in a test's
// own set-up.
func New(o Options) *Server {
	s := &Server{
		seed:    mix(o.Seed),
		keep:    cmp.Or(o.Keep, KeepAll),
		clock:   o.Now,
		repeats: cmp.Or(o.RepeatWindow, repeatWindow),
		apps:    make(map[string]*app),
		texts:   newErrTexts(),
	}
	if s.clock == nil {
		s.clock = time.Now
	}
	s.calls.New = func() any { return new(call) }
	s.latency.Store(int64(o.Latency))
	s.endpoints, s.unknown = newEndpoints()
	s.faults.set(o.Faults)
	s.control = s.newControl()
	s.pushes = newPusher(cmp.Or(o.Client, &http.Client{Timeout: pushDeadline}),
		cmp.Or(o.Logger, slog.New(slog.DiscardHandler)))
	for _, account := range o.Accounts {
		s.addAccount(account, o.Templates)
	}
	for _, mini := range o.Minis {
		s.addMini(mini)
	}
	return s
}

// Close stops pushing events and waits for the pushes under way. The handler goes on answering.
func (s *Server) Close() { s.pushes.close() }

func (s *Server) addAccount(o Account, templates []Template) {
	a := s.addApp(o.AppID, o.Secret)
	a.original = cmp.Or(o.OriginalID, originalID(s.seed, o.AppID))
	a.bind(s.seed, o.Platform, o.Unbound)
	a.quota.init(len(s.endpoints)+1, s.dailyLimits(o.Followers, o.DailyLimits),
		s.byIndex(o.MinuteLimits))
	a.whitelist.Store(&o.Whitelist)
	a.quirks.Store(&o.Quirks)
	a.callback.Store(o.Callback)
	a.followers = newRoster(o.First, o.Followers, hashString(s.seed, "roster"+o.AppID))
	if len(o.Templates) > 0 {
		templates = o.Templates
	}
	if templates == nil {
		templates = StandardTemplates()
	}
	for _, t := range templates {
		a.templates = append(a.templates, newTemplate(t))
	}
}

func (s *Server) addMini(o Mini) {
	a := s.addApp(o.AppID, o.Secret)
	a.mini = true
	a.original = originalID(s.seed, o.AppID)
	a.bind(s.seed, o.Platform, o.Unbound)
	a.quota.init(len(s.endpoints)+1, s.dailyLimits(0, o.DailyLimits), nil)
	a.whitelist.Store(&o.Whitelist)
	a.quirks.Store(&Quirks{})
	first, followers := 0, 0
	for _, other := range s.order {
		if other.followers != nil {
			first, followers = other.followers.first, other.followers.base
			break
		}
	}
	a.users = newUsers(o.Users, o.NotFollowing, first, followers)
	a.callback.Store(o.Callback)
	a.noMsgID, a.grants.initial = o.NoMsgID, o.Granted
	templates := o.Templates
	if templates == nil {
		templates = StandardSubscribeTemplates()
	}
	for _, t := range templates {
		a.templates = append(a.templates, newSubscribeTemplate(t))
	}
	if o.Pages != nil {
		a.pages = make(map[string]bool, len(o.Pages))
	}
	for _, page := range o.Pages {
		a.pages[page] = true
	}
}

func (s *Server) addApp(appid, secret string) *app {
	if s.apps[appid] != nil {
		panic("wechatsim: two accounts with appid " + appid)
	}
	a := &app{id: appid, secret: secret, ids: newIDCodec(s.seed, "openid"+appid)}
	a.store.init(s.repeats)
	s.apps[appid] = a
	s.order = append(s.order, a)
	return a
}

// ServeHTTP answers WeChat's paths, and those of the control interface under /_sim/.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, controlPrefix) {
		s.control.ServeHTTP(w, r)
		return
	}
	ep := s.endpoints[r.URL.Path]
	if ep == nil {
		ep = s.unknown
	}
	ep.calls.Add(1)
	// chunked: the platform's front refuses it before anything is looked at
	if r.ContentLength < 0 {
		ep.countError("http_412")
		w.Header()["Content-Length"] = []string{"0"}
		w.WriteHeader(http.StatusPreconditionFailed)
		return
	}
	c := s.calls.Get().(*call)
	defer c.release()
	c.init(s, r, ep)
	if !c.readBody() {
		ep.countError("aborted")
		return
	}
	if ep.serial {
		c.enter()
		defer c.leave()
	}
	if !sleep(r.Context(), time.Duration(s.latency.Load())) {
		return
	}
	c.now = s.clock()
	fault := s.faults.pick(c)
	if fault == nil {
		c.process()
		c.write(w)
		return
	}
	c.applyFault(w, fault)
}

// draw returns the next number of the server's random sequence.
func (s *Server) draw() uint64 { return mix(s.seed ^ s.draws.Add(1)) }

// SetLatency changes the time that every answer takes on top of its work.
func (s *Server) SetLatency(latency time.Duration) { s.latency.Store(int64(latency)) }
