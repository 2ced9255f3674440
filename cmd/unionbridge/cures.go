package main

import (
	"cmp"
	"slices"

	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

// cures says what an errcode comes from and what to do about it. Some codes have another cure at a
// mini program than at an official account.
type cures struct {
	minis        []string // the configuration's mini programs
	defaultAppID string
}

func curesOf(cfg *config.Config) cures {
	return cures{minis: miniAppIDs(cfg), defaultAppID: cfg.DefaultAppID()}
}

// of returns the cure of an account's errcode; "": none is known. The appid "" is the default
// account's. Only mini programs have the reason no_grant, also those of another instance's
// configuration.
func (c cures) of(appid, reason string, code int) string {
	if c.mini(appid) || reason == string(wechat.ReasonNoGrant) {
		return wechat.ExplainAt(wechat.EndpointSendSubscribe, code)
	}
	return wechat.Explain(code)
}

// mini reports whether an account is a mini program of the configuration.
func (c cures) mini(appid string) bool {
	return slices.Contains(c.minis, cmp.Or(appid, c.defaultAppID))
}
