package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

var appID = regexp.MustCompile(`^wx[0-9a-f]{16}$`)

func validateAccounts(cfg *Config, ps *problems) {
	if len(cfg.OfficialAccounts)+len(cfg.MiniPrograms) == 0 {
		ps.add("official_accounts", "missing; at least one account is needed, here or under "+
			"mini_programs, with appid and secret_file")
	}
	// appid → where
	seen := make(map[string]string, len(cfg.OfficialAccounts)+len(cfg.MiniPrograms))
	marked := ""
	for i := range cfg.OfficialAccounts {
		a := &cfg.OfficialAccounts[i]
		path := fmt.Sprintf("official_accounts[%d]", i)
		validateAppID(path+".appid", a.AppID, seen, ps)
		validateAccount(path, a, ps)
		if a.Default && marked != "" {
			ps.add(path+".default", "%s is marked already; one account can be the default", marked)
		}
		if a.Default {
			marked = path
		}
	}
	for i := range cfg.MiniPrograms {
		path := fmt.Sprintf("mini_programs[%d]", i)
		validateAppID(path+".appid", cfg.MiniPrograms[i].AppID, seen, ps)
		validateMiniProgram(path, &cfg.MiniPrograms[i], ps)
	}
}

func validateAppID(path, id string, seen map[string]string, ps *problems) {
	first, twice := seen[id]
	switch {
	case id == "":
		ps.add(path, "missing; the platform's console shows it: wx and 16 hexadecimal digits")
	case !appID.MatchString(id):
		ps.add(path, "%s is not an appid: wx and 16 hexadecimal digits in lower case", quote(id))
	case twice:
		ps.add(path, "%s stands at %s already; an appid belongs to one account", id, first)
	default:
		seen[id] = path
	}
}

func validateAccount(path string, a *OfficialAccount, ps *problems) {
	validateToken(path+".token", &a.Token, ps)
	validateCallback(path+".callback", a.Callback, ps)
	validateCron(path+".sync.sweep", a.Sync.Sweep, ps)
	validateCron(path+".sync.refresh", a.Sync.Refresh, ps)
	inRange(ps, path+".sync.keep_runs", a.Sync.KeepRuns, [2]int{10, 1_000_000})
	inRange(ps, path+".sync.concurrency", a.Sync.Concurrency, [2]int{1, 1000})
	validateSend(path+".send", &a.Send, ps)
}

// maxRate is above the highest limit that is known of an account: 4,200,000 calls a minute.
const maxRate = 100_000

func validateSend(path string, s *Send, ps *problems) {
	validatePace(path, s.Rate, s.DailyBudget, ps)
	inRange(ps, path+".concurrency", s.Concurrency, [2]int{1, 1000})
	inRange(ps, path+".max_attempts", s.MaxAttempts, [2]int{1, 100})
	if s.WaitForFollower < 0 {
		ps.add(path+".wait_for_follower", `%s is negative; "0s" does not wait`, s.WaitForFollower)
	}
	atMost(ps, path+".wait_for_follower", s.WaitForFollower, maxWait)
	atMost(ps, path+".blocked_for", s.BlockedFor, maxWait)
	if s.ResendWindow < 0 || s.ResendWindow > MaxResendWindow {
		ps.add(path+".resend_window", `%s is not between 0s (never repeat) and %s: WeChat drops `+
			`a second message within 10 minutes only, and a minute is left for clocks and the way`, s.ResendWindow, MaxResendWindow)
	}
	if s.BlockedFor < 0 {
		ps.add(path+".blocked_for", `%s is negative; "0s" forgets at once`, s.BlockedFor)
	}
}

// validatePace checks how much an account sends.
func validatePace(path string, rate float64, dailyBudget int64, ps *problems) {
	positive(ps, path+".rate", rate)
	if rate > maxRate && !math.IsInf(rate, 1) {
		ps.add(path+".rate", "%v messages a second is more than WeChat takes from any account; "+
			"200 is the default, and at most %d", rate, maxRate)
	}
	if dailyBudget < 0 {
		ps.add(path+".daily_budget", "%d is negative; 0 sets no limit of our own", dailyBudget)
	}
}

func validateMiniSend(path string, s *MiniSend, ps *problems) {
	validatePace(path, s.Rate, s.DailyBudget, ps)
	inRange(ps, path+".concurrency", s.Concurrency, [2]int{1, 1000})
	inRange(ps, path+".max_attempts", s.MaxAttempts, [2]int{1, 100})
	if s.WaitForGrant < 0 {
		ps.add(path+".wait_for_grant", `%s is negative; "0s" does not wait`, s.WaitForGrant)
	}
	atMost(ps, path+".wait_for_grant", s.WaitForGrant, maxWait)
}

// The values of mini_programs[].grants.
const (
	grantsEvents  = "events"
	grantsReports = "reports"
	grantsBoth    = "both"
	grantsNone    = "none"
)

func validateMiniProgram(path string, m *MiniProgram, ps *problems) {
	validateToken(path+".token", &m.Token, ps)
	validateMiniSend(path+".send", &m.Send, ps)
	validateCallback(path+".callback", m.Callback, ps)
	known := []string{"", grantsEvents, grantsReports, grantsBoth, grantsNone}
	switch {
	case !slices.Contains(known, m.Grants):
		ps.add(path+".grants", "%s is none of events, reports, both, none", quote(m.Grants))
	case (m.Grants == grantsEvents || m.Grants == grantsBoth) && m.Callback == nil:
		ps.add(path+".grants", "%s needs WeChat's pushes; set callback, or use reports or none",
			m.Grants)
	}
}

func validateCallback(path string, c *Callback, ps *problems) {
	if c != nil {
		validateAESKey(path+".aes_key", c.AESKey, ps)
		validateAESKey(path+".previous_aes_key", c.PreviousAESKey, ps)
	}
}

// validateAESKey decodes as the callback does: the key's last character may hold spare bits, which
// StdEncoding accepts and Strict would not.
func validateAESKey(path string, key Secret, ps *problems) {
	value := key.Reveal()
	if value == "" {
		return // reported as missing or empty
	}
	if _, err := base64.StdEncoding.DecodeString(value + "="); err != nil || len(value) != 43 {
		ps.add(path, "is not an EncodingAESKey: 43 letters and digits, as the platform's console "+
			"shows it (this has %d characters)", len(value))
	}
}

func validateCron(path, line string, ps *problems) {
	err := checkCron(line)
	if err == nil {
		return
	}
	const cure = `write it like "17 3 * * *" (minute hour day month weekday) or "@every 5m"`
	if shown := quote(line); shown == strconv.Quote(line) {
		ps.add(path, "%s is not a schedule: %w; %s", shown, err, cure)
	} else { // err quotes the line
		ps.add(path, "%s is not a schedule; %s", shown, cure)
	}
}

// checkCron adds to the parser what it lets pass: it panics on a zone without a line behind it,
// rounds "@every 10ms" up to a second in silence, and accepts the 31st of February.
func checkCron(line string) error {
	zoned := strings.HasPrefix(line, "TZ=") || strings.HasPrefix(line, "CRON_TZ=")
	if zoned && !strings.Contains(line, " ") {
		return errors.New("nothing follows the time zone")
	}
	schedule, err := cron.ParseStandard(line)
	if err != nil {
		return err
	}
	if every, ok := strings.CutPrefix(line, "@every "); ok {
		if d, err := time.ParseDuration(every); err != nil || d < time.Second {
			return errors.New("shorter than a second")
		}
	}
	// Next looks five years ahead; from this day on that span holds a 29th of February.
	if schedule.Next(time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return errors.New("no such day ever comes")
	}
	return nil
}

// daylightSaving says whether a schedule loses or doubles a turn where the clock is changed, which
// does not matter to one that comes every hour. The rules of 2026 stand for those of other years.
func daylightSaving(line string) string {
	parsed, err := cron.ParseStandard(line)
	schedule, ok := parsed.(*cron.SpecSchedule)
	if err != nil || !ok {
		return ""
	}
	at := time.Date(2026, time.January, 1, 0, 0, 0, 0, schedule.Location)
	for range 4 { // changes a year
		_, change := at.ZoneBounds()
		if change.IsZero() {
			return ""
		}
		_, before := change.Add(-time.Second).In(schedule.Location).Zone()
		_, after := change.In(schedule.Location).Zone()
		at = change.In(schedule.Location)
		// The wall clock's times that are skipped, or that come twice, by the clock from before.
		from, to := change, change.Add(time.Duration(after-before)*time.Second)
		words := "daylight saving skips that hour on one day of the year, and the sweep is left out"
		if to.Before(from) {
			from, to = to, from
			words = "daylight saving repeats that hour on one day of the year, and the sweep may " +
				"run twice"
		}
		steady := *schedule
		steady.Location = time.FixedZone("", before)
		next := steady.Next(from.Add(-time.Second))
		if next.Before(to) && steady.Next(next).Sub(next) > time.Hour {
			return words + "; choose another hour, or a zone without it, such as " +
				"CRON_TZ=Asia/Shanghai"
		}
	}
	return ""
}

// The values of token.mode.
const (
	tokenStable  = "stable"
	tokenClassic = "classic"
	tokenURL     = "url"
	tokenCommand = "command"
)

// headerName is stricter than HTTP: nothing that anybody sends is refused, and what is no name,
// such as a value that slipped out of its place, is not repeated.
var headerName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]{0,39}$`)

// headerValue is printable ASCII; anything else would be refused when the first token is fetched.
var headerValue = regexp.MustCompile(`^[\x20-\x7e]*$`)

func validateToken(path string, t *Token, ps *problems) {
	modes := []string{tokenStable, tokenClassic, tokenURL, tokenCommand}
	if !slices.Contains(modes, t.Mode) {
		ps.add(path+".mode", "%s is not known; use stable (or leave it out), classic, url or "+
			"command", quote(t.Mode))
		return
	}
	if t.Mode == tokenURL {
		validateTokenURL(path, t, ps)
	} else {
		refuseKeys(ps, path, tokenURL, map[string]bool{
			"url": t.URL.IsSet(), "url_file": t.URLFile != "", "url_env": t.URLEnv != "",
			"header": len(t.Header) > 0,
		})
	}
	if t.Mode == tokenCommand {
		validateTokenCommand(path+".command", t.Command, ps)
	} else {
		refuseKeys(ps, path, tokenCommand, map[string]bool{"command": len(t.Command) > 0})
	}
}

// refuseKeys reports given keys of another mode: one of the two is a mistake.
func refuseKeys(ps *problems, path, mode string, given map[string]bool) {
	for key, is := range given {
		if is {
			ps.add(path+"."+key, "belongs to mode: %s; set that, or remove this line", mode)
		}
	}
}

func validateTokenURL(path string, t *Token, ps *problems) {
	if text := t.URL.Reveal(); text != "" { // else reported as missing or empty
		u, ok := parseURL(path+".url", text, ps)
		switch {
		case ok && u.User != nil:
			ps.add(path+".url", "must not hold a user; put it into header: {Authorization: "+
				"{value_file: …}}")
		case ok && u.Fragment != "":
			ps.add(path+".url", "holds a #, and what follows it is never sent; write %%23 if it "+
				"belongs to a value")
		}
	}
	for name, value := range t.Header {
		if strings.EqualFold(name, "Content-Length") || strings.EqualFold(name, "Accept-Encoding") {
			ps.add(path+".header."+name, "is set by the daemon itself; remove this line")
		}
		if headerName.MatchString(name) && !headerValue.MatchString(value.Value.Reveal()) {
			ps.add(path+".header."+name, "is not what a header line may hold: printable ASCII")
		}
	}
}

// validateTokenCommand checks the program now, and not when the first token is due.
func validateTokenCommand(path string, argv []string, ps *problems) {
	if len(argv) == 0 {
		ps.add(path, `missing; give the program and its arguments as a list, such as `+
			`["/usr/local/bin/wx-token", "--quiet"]`)
		return
	}
	info, err := os.Stat(argv[0])
	switch {
	case strings.ContainsRune(strings.Join(argv, ""), 0):
		ps.add(path, "an argument holds a zero byte")
	case !filepath.IsAbs(argv[0]):
		ps.add(path, "must begin with an absolute path: no shell and no PATH looks the program up")
	case errors.Is(err, fs.ErrNotExist):
		ps.add(path, "the program does not exist; install it, or correct the path")
	case err != nil:
		ps.add(path, "the program cannot be looked at by this user; check the folders' permissions")
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		ps.add(path, "is not a program; chmod +x it, or name another file")
	}
}
