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

// settle fills in the defaults that depend on other values.
func settle(cfg *Config) {
	main := &cfg.OfficialAccounts[defaultIndex(cfg)]
	main.Default = true
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
		if t.Official.ID == "" {
			continue
		}
		if t.Official.IDs == nil {
			t.Official.IDs = make(map[string]string, 1)
		}
		t.Official.IDs[main.AppID] = t.Official.ID
		cfg.Templates[alias] = t
	}
}

func defaultIndex(cfg *Config) int {
	marked := func(a OfficialAccount) bool { return a.Default }
	return max(0, slices.IndexFunc(cfg.OfficialAccounts, marked))
}
