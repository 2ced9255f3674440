package config

import (
	"cmp"
	"slices"
	"time"
)

// defaults is what holds before the file is read. Each value's reason stands at its field.
func defaults() *Config {
	return &Config{
		Database: Database{MaxConnections: 8},
		WeChat: WeChat{
			BaseURL:     "https://api.weixin.qq.com",
			Timeout:     Duration(30 * time.Second),
			SendTimeout: Duration(10 * time.Second),
		},
		HTTP:            HTTP{Listen: "127.0.0.1:8080"},
		Log:             Log{Level: "info", Format: "text"},
		ShutdownTimeout: Duration(25 * time.Second),
		Retention:       Retention{Finished: Duration(720 * time.Hour)},
	}
}

func defaultAccount() OfficialAccount {
	return OfficialAccount{
		Token: Token{Mode: "stable"},
		Sync: Sync{Sweep: "17 3 * * *", Refresh: "@every 5m", MaxGone: 5, QuotaReserve: 10,
			KeepRuns: 100, Concurrency: 8},
		Send: Send{
			Rate:            200,
			Concurrency:     64,
			MaxAttempts:     8,
			WaitForFollower: Duration(72 * time.Hour),
			ResendWindow:    Duration(9 * time.Minute),
			Preflight:       true,
			UrgentReserve:   5,
			BlockedFor:      Duration(24 * time.Hour),
		},
	}
}

// UnmarshalYAML sets an account's defaults before its keys: defaults knows no list entries.
func (a *OfficialAccount) UnmarshalYAML(unmarshal func(any) error) error {
	type plain OfficialAccount // without this method, or it would call itself
	p := plain(defaultAccount())
	if err := unmarshal(&p); err != nil {
		return err
	}
	*a = OfficialAccount(p)
	return nil
}

func defaultMiniProgram() MiniProgram {
	return MiniProgram{
		Token: Token{Mode: tokenStable},
		Send: MiniSend{
			Rate:          100,
			Concurrency:   16,
			MaxAttempts:   8,
			WaitForGrant:  Duration(72 * time.Hour),
			Preflight:     true,
			UrgentReserve: 5,
		},
	}
}

// UnmarshalYAML sets a mini program's defaults before its keys.
func (m *MiniProgram) UnmarshalYAML(unmarshal func(any) error) error {
	type plain MiniProgram
	p := plain(defaultMiniProgram())
	var given struct {
		Send *struct{} `yaml:"send"`
	}
	if err := unmarshal(&p); err != nil {
		return err
	}
	if err := unmarshal(&given); err != nil {
		return err
	}
	*m = MiniProgram(p)
	m.Sends = given.Send != nil
	return nil
}

// settle fills in the defaults that depend on other values.
func settle(cfg *Config) {
	if len(cfg.OfficialAccounts) > 0 {
		cfg.OfficialAccounts[defaultIndex(cfg)].Default = true
	}
	for i := range cfg.OfficialAccounts {
		a := &cfg.OfficialAccounts[i]
		a.Name = cmp.Or(a.Name, a.AppID)
	}
	for i := range cfg.MiniPrograms {
		m := &cfg.MiniPrograms[i]
		m.Name = cmp.Or(m.Name, m.AppID)
		if m.Grants == "" {
			m.Grants = map[bool]string{true: grantsEvents, false: grantsNone}[m.Callback != nil]
		}
	}
	for alias, t := range cfg.Templates {
		settleTemplate(cfg, &t)
		cfg.Templates[alias] = t
	}
	for i := range cfg.MiniPrograms {
		m := &cfg.MiniPrograms[i]
		m.Sends = m.Sends || mustSend(cfg, i) || m.hasToken() && hasTemplate(cfg, m.AppID)
	}
}

func settleTemplate(cfg *Config, t *Template) {
	t.Uncertain = cmp.Or(t.Uncertain, UncertainUnknown)
	if t.Official.ID != "" {
		if t.Official.IDs == nil {
			t.Official.IDs = make(map[string]string, 1)
		}
		t.Official.IDs[cfg.DefaultAppID()] = t.Official.ID
	}
	if t.Mini != nil && t.Mini.ID != "" && len(cfg.MiniPrograms) > 0 {
		if t.Mini.IDs == nil {
			t.Mini.IDs = make(map[string]string, 1)
		}
		t.Mini.IDs[cfg.MiniPrograms[0].AppID] = t.Mini.ID
	}
	if len(t.Route) > 0 {
		return
	}
	if len(t.Official.IDs) > 0 {
		t.Route = append(t.Route, RouteOfficial)
	}
	if t.Mini != nil {
		t.Route = append(t.Route, RouteMini)
	}
}

// mustSend reports whether a mini program is the account that requests without an appid belong to.
func mustSend(cfg *Config, i int) bool { return i == 0 && len(cfg.OfficialAccounts) == 0 }

func hasTemplate(cfg *Config, appid string) bool {
	for _, t := range cfg.Templates {
		if t.Mini != nil && t.Mini.IDs[appid] != "" {
			return true
		}
	}
	return false
}

// hasToken reports whether there is anything to get an access token with.
func (m *MiniProgram) hasToken() bool { return m.Secret.IsSet() || m.Token.external() }

// external reports whether the token comes from the company's own server or command.
func (t *Token) external() bool { return t.Mode == tokenURL || t.Mode == tokenCommand }

func defaultIndex(cfg *Config) int {
	marked := func(a OfficialAccount) bool { return a.Default }
	return max(0, slices.IndexFunc(cfg.OfficialAccounts, marked))
}
