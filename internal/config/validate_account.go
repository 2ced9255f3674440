package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

var appID = regexp.MustCompile(`^wx[0-9a-f]{16}$`)

func validateAccounts(cfg *Config, ps *problems) {
	if len(cfg.OfficialAccounts) == 0 {
		ps.add("official_accounts", "missing; at least one official account is needed, with "+
			"appid and secret_file")
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
		validateAppID(fmt.Sprintf("mini_programs[%d].appid", i), cfg.MiniPrograms[i].AppID, seen, ps)
	}
}

func validateAppID(path, id string, seen map[string]string, ps *problems) {
	if id == "" {
		ps.add(path, "missing; the platform's console shows it: wx and 16 hexadecimal digits")
		return
	}
	if !appID.MatchString(id) {
		ps.add(path, "%s is not an appid: wx and 16 hexadecimal digits in lower case", quote(id))
		return
	}
	if first, ok := seen[id]; ok {
		ps.add(path, "%s stands at %s already; an appid belongs to one account", id, first)
		return
	}
	seen[id] = path
}

func validateAccount(path string, a *OfficialAccount, ps *problems) {
	validateToken(path+".token", &a.Token, ps)
	if a.Callback != nil {
		validateAESKey(path+".callback.aes_key", a.Callback.AESKey, ps)
		validateAESKey(path+".callback.previous_aes_key", a.Callback.PreviousAESKey, ps)
	}
	validateCron(path+".sync.sweep", a.Sync.Sweep, ps)
	validateCron(path+".sync.refresh", a.Sync.Refresh, ps)
	inRange(ps, path+".sync.keep_runs", a.Sync.KeepRuns, [2]int{10, 1_000_000})
	inRange(ps, path+".sync.concurrency", a.Sync.Concurrency, [2]int{1, 1000})
	validateSend(path+".send", &a.Send, ps)
}

func validateSend(path string, s *Send, ps *problems) {
	positive(ps, path+".rate", s.Rate)
	inRange(ps, path+".concurrency", s.Concurrency, [2]int{1, 1000})
	inRange(ps, path+".max_attempts", s.MaxAttempts, [2]int{1, 100})
	if s.WaitForFollower < 0 {
		ps.add(path+".wait_for_follower", `%s is negative; "0s" does not wait`, s.WaitForFollower)
	}
	if s.ResendWindow < 0 || s.ResendWindow > MaxResendWindow {
		ps.add(path+".resend_window", `%s is not between 0s (never repeat) and %s: WeChat drops `+
			`a second message within 10 minutes only`,
			s.ResendWindow, MaxResendWindow)
	}
	if s.DailyBudget < 0 {
		ps.add(path+".daily_budget", "%d is negative; 0 sets no limit of our own", s.DailyBudget)
	}
	if s.BlockedFor < 0 {
		ps.add(path+".blocked_for", `%s is negative; "0s" forgets at once`, s.BlockedFor)
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
	if strings.HasPrefix(line, "TZ=") || strings.HasPrefix(line, "CRON_TZ=") {
		if !strings.Contains(line, " ") {
			return errors.New("nothing follows the time zone")
		}
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
