package config

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// validate reports everything in cfg that cannot work; secrets are fetched already.
func validate(cfg *Config, ps *problems) {
	validateDatabase(&cfg.Database, ps)
	validateWeChat(&cfg.WeChat, ps)
	validateHTTP(&cfg.HTTP, ps)
	validateLog(&cfg.Log, ps)
	if cfg.ShutdownTimeout < Duration(time.Second) {
		ps.add("shutdown_timeout", `%s is too short to finish anything; at least "1s"`, cfg.ShutdownTimeout)
	}
	atMost(ps, "shutdown_timeout", cfg.ShutdownTimeout, maxShutdown)
	atMost(ps, "retention.finished", cfg.Retention.Finished, maxRetention)
	if f := cfg.Retention.Finished; f != 0 && f < minRetention {
		ps.add("retention.finished", `%s is too short: producers look their outcomes up; at `+
			`least %s, or "0s" to keep them for ever`, f, minRetention)
	}
	validateAccounts(cfg, ps)
	validateTemplates(cfg, ps)
	validateApplications(cfg, ps)
	validateAPI(cfg, ps)
}

// minRetention is longer than everything that still happens to a finished request: receipts, an
// unknown outcome that a receipt settles, a producer's second look.
const minRetention = Duration(time.Hour)

// validateDatabase passes on the driver's words about the DSN only where they are constant: others
// quote the part that was not understood, and that may be a password.
func validateDatabase(db *Database, ps *problems) {
	const shape = "user:password@tcp(host:3306)/database"
	parsed, err := mysql.ParseDSN(db.DSN.Reveal())
	switch {
	case db.DSN.Reveal() == "": // reported as missing or empty
	case err != nil && strings.HasPrefix(err.Error(), "invalid DSN: "):
		ps.add("database.dsn", "%s; the form is %s", err, shape)
	case err != nil:
		ps.add("database.dsn", "not understood; the form is %s, options follow as ?name=value&…", shape)
	case parsed.DBName == "":
		ps.add("database.dsn", "names no database; the form is %s", shape)
	}
	// One connection is not enough: a lease's renewal must not wait behind a sweep's scan.
	inRange(ps, "database.max_connections", db.MaxConnections, [2]int{3, 1000})
}

func validateWeChat(w *WeChat, ps *problems) {
	u, ok := parseURL("wechat.base_url", w.BaseURL, ps)
	if ok && (u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "") {
		ps.add("wechat.base_url", "must end after the host or a path: no user, query or fragment")
	}
	w.BaseURL = strings.TrimRight(w.BaseURL, "/")
	if w.Timeout <= 0 {
		ps.add("wechat.timeout", `%s must be above zero; "30s" is the default`, w.Timeout)
	}
	atMost(ps, "wechat.timeout", w.Timeout, maxTimeout)
	if w.SendTimeout <= 0 || w.SendTimeout > MaxSendTimeout {
		ps.add("wechat.send_timeout", "%s must be above zero and at most %s, so that a claimed "+
			"message is settled before it falls due again", w.SendTimeout, MaxSendTimeout)
	}
	inRange(ps, "wechat.quota_reset_hour", w.QuotaResetHour, [2]int{0, 23})
}

// parseURL refuses what may get no secrets. It does not quote the URL: it may hold a password.
func parseURL(path, text string, ps *problems) (u *url.URL, ok bool) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		ps.add(path, "not a URL; the form is https://host")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		ps.add(path, "must be https: tokens and secrets travel in it; plain http is for this "+
			"machine only (127.0.0.1, ::1, localhost)")
	case u.Scheme != "http" && u.Scheme != "https":
		ps.add(path, "must begin with https://")
	default:
		return u, true
	}
	return nil, false
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback() || host == "localhost"
}

func validateHTTP(h *HTTP, ps *problems) {
	validateListen("http.listen", h.Listen, ps)
	if h.CallbackListen == "" {
		return
	}
	validateListen("http.callback_listen", h.CallbackListen, ps)
	if _, port, _ := net.SplitHostPort(h.Listen); h.CallbackListen == h.Listen && port != "0" {
		ps.add("http.callback_listen", "is the same address as http.listen; the callback's port "+
			"is open to the internet, health and metrics should not be")
	}
}

func validateListen(path, address string, ps *problems) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		ps.add(path, `%s is not host:port; such as "127.0.0.1:8080" or ":8080"`, quote(address))
		return
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		ps.add(path, "port %s is not a number from 0 to 65535", quote(port))
	}
	if strings.ContainsAny(host, "/ @") {
		ps.add(path, "host %s is neither a name nor an address; leave out http:// and paths", quote(host))
	}
}

func validateLog(l *Log, ps *problems) {
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, l.Level) {
		ps.add("log.level", "%s is none of debug, info, warn, error", quote(l.Level))
	}
	if !slices.Contains([]string{"text", "json"}, l.Format) {
		ps.add("log.format", "%s is neither text nor json", quote(l.Format))
	}
}

func inRange(ps *problems, path string, value int, bounds [2]int) {
	if value < bounds[0] || value > bounds[1] {
		ps.add(path, "%d is not between %d and %d", value, bounds[0], bounds[1])
	}
}

func atMost(ps *problems, path string, value, limit Duration) {
	if value > limit {
		ps.add(path, "%s is too long; at most %s", value, limit)
	}
}

func positive(ps *problems, path string, value float64) {
	if !(value > 0) || math.IsInf(value, 1) { // this way round NaN is refused too
		ps.add(path, "%v is not a number above zero", value)
	}
}

var appSecret = regexp.MustCompile(`^[0-9a-f]{32}$`)

func warnings(cfg *Config) (list []string) {
	warn := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if cfg.ShutdownTimeout <= cfg.WeChat.SendTimeout {
		warn("shutdown_timeout: %s is not above wechat.send_timeout (%s), so a stop may cut a message "+
			"off on its way; raise shutdown_timeout above it, or lower wechat.send_timeout",
			cfg.ShutdownTimeout, cfg.WeChat.SendTimeout)
	}
	secret := func(path string, s Secret) {
		if n := len(s.Reveal()); s.IsSet() && !appSecret.MatchString(s.Reveal()) {
			warn("%s: no AppSecret: the console shows 32 of 0-9 and a-f, this has %d characters; "+
				"was it cut, or is it another value?", path, n)
		}
	}
	unheard := func(path string, c *Callback) {
		if c != nil && cfg.HTTP.CallbackListen == "" {
			warn("%s.callback: nothing listens for it; set http.callback_listen", path)
		}
	}
	for i, m := range cfg.MiniPrograms {
		path := fmt.Sprintf("mini_programs[%d]", i)
		secret(path+".secret", m.Secret)
		unheard(path, m.Callback)
		if m.Token.Mode == tokenClassic {
			warn(classicWarning, path)
		}
	}
	for i, a := range cfg.OfficialAccounts {
		path := fmt.Sprintf("official_accounts[%d]", i)
		secret(path+".secret", a.Secret)
		if words := daylightSaving(a.Sync.Sweep); words != "" {
			warn("%s.sync.sweep: %s", path, words)
		}
		if a.Token.Mode == tokenClassic {
			warn(classicWarning, path)
		}
		unheard(path, a.Callback)
	}
	return slices.Concat(list, templateWarnings(cfg), applicationWarnings(cfg))
}

const classicWarning = "%s.token.mode: classic ends the tokens of every other program and " +
	"instance; run one instance, or use stable"

type problems struct {
	name  string              // the file's, in front of every problem
	at    map[string]position // where each path of the file stands
	found []problem
}

// position counts lines and columns from 1; the zero position is "not in the file".
type position struct{ line, column int }

type problem struct {
	position
	path string
	err  error
}

// add records a problem of the value at path, such as official_accounts[1].sync.sweep. The message
// names the cure and never holds a secret.
func (ps *problems) add(path, format string, args ...any) {
	ps.found = append(ps.found, problem{ps.find(path), path, fmt.Errorf(format, args...)})
}

// find returns the place of path, or of the nearest parent, where what is missing belongs.
func (ps *problems) find(path string) position {
	for path != "" {
		if pos, ok := ps.at[path]; ok {
			return pos
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return position{}
}

func (ps *problems) err() error {
	slices.SortStableFunc(ps.found, func(a, b problem) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.column, b.column))
	})
	errs := make([]error, 0, len(ps.found))
	for _, p := range ps.found {
		place := ps.name
		if p.line > 0 {
			place = fmt.Sprintf("%s:%d:%d", ps.name, p.line, p.column)
		}
		if p.path != "" {
			place += ": " + p.path
		}
		errs = append(errs, fmt.Errorf("%s: %w", place, p.err))
	}
	return errors.Join(errs...)
}
