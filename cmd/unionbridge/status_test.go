package main

import (
	"strings"
	"testing"

	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/status"
)

// TestStatusOfMiniPrograms: of mini programs, those that send are accounts, after the official ones,
// and nothing is said of followers.
func TestStatusOfMiniPrograms(t *testing.T) {
	cfg := &config.Config{
		OfficialAccounts: []config.OfficialAccount{{AppID: "official", Default: true}},
		MiniPrograms:     []config.MiniProgram{{AppID: "silent"}, {AppID: "mini", Name: "Shop", Sends: true}},
	}
	accounts := statusConfig(cfg, false).Accounts
	if len(accounts) != 2 || accounts[0].Mini || accounts[1].AppID != "mini" || !accounts[1].Mini ||
		accounts[1].Default {
		t.Errorf("accounts %+v", accounts)
	}
	cfg.OfficialAccounts = nil
	cfg.MiniPrograms = cfg.MiniPrograms[1:]
	if accounts = statusConfig(cfg, false).Accounts; len(accounts) != 1 || !accounts[0].Default {
		t.Errorf("accounts %+v without an official one", accounts)
	}
	host := "host-1"
	var out strings.Builder
	err := writeStatus(&out, status.Report{Accounts: []status.Account{
		{AppID: "mini", Kind: status.KindMini, Name: "Shop", Default: true, SentBy: &host},
	}})
	got := out.String()
	if err != nil || !strings.Contains(got, "mini Shop (default)") || !strings.Contains(got, host) ||
		strings.Contains(got, "sweep") || strings.Contains(got, "refresh") {
		t.Errorf("%v, prints\n%s", err, got)
	}
}
