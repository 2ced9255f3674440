package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"
)

var (
	// 64: the column's width.
	applicationName = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,63}$`)
	secretHash      = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// maxHashes: the secret in use and, while programs change over, the one before it.
const maxHashes = 2

// maxDuplicateWindow is as long as finished requests are kept at least: what is compared with must
// still be there.
const maxDuplicateWindow = minRetention

func validateApplications(cfg *Config, ps *problems) {
	names := make(map[string]string, len(cfg.Applications))  // name → where
	hashes := make(map[string]string, len(cfg.Applications)) // hash → where
	for i := range cfg.Applications {
		a := &cfg.Applications[i]
		path := fmt.Sprintf("applications[%d]", i)
		validateApplicationName(path+".name", a.Name, names, ps)
		validateHashes(path, a, hashes, ps)
		validateRights(cfg, path, a, ps)
		a.Networks = validateNetworks(path+".networks", a.Networks, ps)
		inRange(ps, path+".priority", a.Priority, [2]int{0, 2})
		for _, limit := range []struct {
			key   string
			value int64
		}{{"minute", a.Limit.Minute}, {"day", a.Limit.Day}} {
			if limit.value < 0 {
				ps.add(path+".limit."+limit.key, "%d is negative; 0 sets no limit", limit.value)
			}
		}
		if a.DuplicateWindow < 0 {
			ps.add(path+".duplicate_window", `%s is negative; "0s" takes each message for a new one`,
				a.DuplicateWindow)
		}
		atMost(ps, path+".duplicate_window", a.DuplicateWindow, maxDuplicateWindow)
		validateForward(path, a.Forward, ps)
		validateEcho(path+".echo", a.Echo, ps)
	}
}

func validateApplicationName(path, name string, seen map[string]string, ps *problems) {
	first, twice := seen[name]
	switch {
	case name == "":
		ps.add(path, "missing; it is for logs, and stands in the application's requests")
	case !applicationName.MatchString(name):
		ps.add(path, "%s is not a name: 1 to 64 of a-z, 0-9, underscore, dot and hyphen, first a "+
			"letter or digit", quote(name))
	case appID.MatchString(name):
		ps.add(path, "%s reads as an appid; choose another name", name)
	case twice:
		ps.add(path, "%s is the name at %s already; choose another one", name, first)
	default:
		seen[name] = path
	}
}

func validateHashes(path string, a *Application, seen map[string]string, ps *problems) {
	at := path + ".secret_hashes"
	if a.SecretHashFile != "" {
		at = path + ".secret_hash_file"
	}
	if len(a.SecretHashes) > maxHashes {
		ps.add(at, "holds %d hashes; at most two secrets are valid, the last one and the one before "+
			"it: remove the oldest", len(a.SecretHashes))
	}
	for _, hash := range a.SecretHashes {
		first, twice := seen[hash]
		switch {
		case appSecret.MatchString(hash):
			ps.add(at, "holds a secret itself, and not its hash; make a new secret, for this one may "+
				"have been seen: unionbridge application secret %s", shown(a.Name))
		case !secretHash.MatchString(hash):
			ps.add(at, "holds what is no hash: 64 of 0-9 and a-f, as \"unionbridge application "+
				"secret\" prints them")
		case twice:
			ps.add(at, "%s has the same hash; each secret belongs to one application and stands there "+
				"once: make another one", first)
		default:
			seen[hash] = path
		}
	}
}

func validateRights(cfg *Config, path string, a *Application, ps *problems) {
	if len(a.Accounts) == 0 {
		ps.add(path+".accounts", "missing; name the accounts and the calls that it may use, such as "+
			"{wx…: [template_send]}")
	}
	for _, appid := range slices.Sorted(maps.Keys(a.Accounts)) {
		validateCalls(cfg, path+".accounts."+appid, rights{appid, a.Accounts[appid]}, ps)
	}
	for i, template := range a.Templates {
		at := fmt.Sprintf("%s.templates[%d]", path, i)
		_, alias := cfg.Templates[template]
		switch {
		case !alias && !templateID.MatchString(template):
			ps.add(at, "%s is neither an alias under templates nor an id of 43 characters; add it there, "+
				"or remove it", quote(template))
		case slices.Contains(a.Templates[:i], template):
			ps.add(at, "%s stands there twice", quote(template))
		}
	}
}

// rights are an application's at one account.
type rights struct {
	appid string
	calls []string
}

func validateCalls(cfg *Config, path string, r rights, ps *problems) {
	official := slices.ContainsFunc(cfg.OfficialAccounts,
		func(a OfficialAccount) bool { return a.AppID == r.appid })
	mini := slices.IndexFunc(cfg.MiniPrograms, func(m MiniProgram) bool { return m.AppID == r.appid })
	switch {
	case !official && mini < 0:
		ps.add(path, "no account has this appid; add it under official_accounts or mini_programs, or "+
			"remove this line")
		return
	case len(r.calls) == 0:
		ps.add(path, "missing; name at least one call, such as template_send")
	}
	known := []string{CallTemplateSend, CallSubscribeSend, CallUniformSend, CallLogin,
		CallIdentities, CallGrants}
	ofMini := []string{CallSubscribeSend, CallLogin, CallGrants}
	for i, call := range r.calls {
		at := fmt.Sprintf("%s[%d]", path, i)
		switch {
		case !slices.Contains(known, call):
			ps.add(at, "%s is none of template_send, subscribe_send, uniform_send, login, identities, "+
				"grants", quote(call))
		case slices.Contains(r.calls[:i], call):
			ps.add(at, "%s stands there twice", call)
		case official && slices.Contains(ofMini, call):
			ps.add(at, "%s is a mini program's; name one, or remove this element", call)
		case call == CallLogin && !cfg.MiniPrograms[mini].Secret.IsSet():
			ps.add(at, "login needs mini_programs[%d].secret_file; add it, or remove this element", mini)
		}
	}
}

// applicationWarnings are about applications that work, and not as somebody expects.
func applicationWarnings(cfg *Config) (list []string) {
	warn := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	switch {
	case len(cfg.Applications) > 0 && cfg.HTTP.APIListen == "":
		warn("applications: nothing listens for them; set http.api_listen")
	case len(cfg.Applications) == 0 && cfg.HTTP.APIListen != "":
		warn("http.api_listen: nobody may use it; add applications")
	}
	for i, a := range cfg.Applications {
		path := fmt.Sprintf("applications[%d]", i)
		if a.DuplicateWindow != 0 && a.DuplicateWindow < Duration(time.Second) {
			warn("%s.duplicate_window: %s is shorter than any repetition; 60s is usual", path,
				a.DuplicateWindow)
		}
		if a.Limit.Day > 0 && a.Limit.Minute > a.Limit.Day {
			warn("%s.limit.minute: %d is above the day's %d, and has no effect", path, a.Limit.Minute,
				a.Limit.Day)
		}
	}
	return list
}
