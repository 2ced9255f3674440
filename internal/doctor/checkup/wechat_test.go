package checkup

import (
	"errors"
	"testing"

	"github.com/unionbridge/unionbridge/internal/doctor"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

// TestSendQuota: little is left of the day's messages; an account that may not ask is none.
func TestSendQuota(t *testing.T) {
	const appid = "wx00000000000000aa"
	e := &exam{Input: Input{Offline: true, Accounts: []Account{{Account: doctor.Account{AppID: appid}}}}}
	check := func(q *wechat.Quota) []finding {
		e.seen = map[string]observed{appid: {result: doctor.Result{TokenTaken: true, Quota: q}}}
		return checkQuota(t.Context(), e)
	}
	expect(t, "enough", check(&wechat.Quota{DailyLimit: 100, Remain: 10}), "ok 10 of 100 messages")
	expect(t, "little", check(&wechat.Quota{DailyLimit: 100, Remain: 9}), "warn 9 of 100 messages are left today: does another")
	expect(t, "not known", check(nil), "skip no account may ask")
}

// TestUnreadableList: a list of templates that cannot be read says nothing of the aliases.
func TestUnreadableList(t *testing.T) {
	account := Account{Account: doctor.Account{AppID: "wx00000000000000aa", Templates: map[string]string{"a": "id"}}}
	e := &exam{Input: Input{Accounts: []Account{account}}, seen: map[string]observed{
		account.AppID: {result: doctor.Result{TokenTaken: true, ListErr: errors.New("busy")}}}}
	expect(t, "busy", checkTemplates(t.Context(), e), "skip the list could not be read: busy")
}
