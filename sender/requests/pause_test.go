package requests

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestPause: an operator's pause stands beside one of WeChat's, a second one changes the words alone,
// and resume ends both of what it names and nothing else.
func TestPause(t *testing.T) {
	f := newFixture(t)
	const template = "tttttttttttttttttttttttttttttttttttttttttttt"
	account, one := Pausable{AppID: appid}, Pausable{appid, template}
	mustPause := func(what Pausable, words string, want bool) {
		t.Helper()
		if changed, err := f.store.Pause(t.Context(), what, words); changed != want || err != nil {
			t.Errorf("pausing %s: changed is %v (%v), want %v", what, changed, err, want)
		}
	}
	scopes := func(pauses []Pause, err error) (list []string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range pauses {
			list = append(list, p.Scope+" "+p.Reason+" "+p.ErrMsg)
		}
		return list
	}
	expect := func(what string, got, want []string) {
		t.Helper()
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	if sends, err := f.store.Sends(t.Context(), appid); sends || err != nil {
		t.Error("an account that nobody knows sends", err)
	}
	f.db.MustExecContext(t.Context(), `INSERT INTO account_state (appid, scope, reason) VALUES
		(?, 'send', 'quota_day'), (?, 'template:other', 'template_banned'), (?, 'settle', 'unsettled'),
		('wx00000000000000bb', 'send', 'no_permission')`, appid, appid, appid)
	if sends, err := f.store.Sends(t.Context(), appid); !sends || err != nil {
		t.Error("an account that has been paused does not send", err)
	}
	mustPause(account, "a", true)
	const longAgo = `UPDATE account_state SET since = '2026-01-01' WHERE scope = 'operator'`
	f.db.MustExecContext(t.Context(), longAgo)
	mustPause(account, "a", false)
	mustPause(account, "b", true)
	mustPause(one, "c", true)
	all, err := f.store.Pauses(t.Context())
	expect("paused", scopes(all, err), []string{
		"operator operator b", "operator:" + template + " operator c", "send quota_day ",
		"template:other template_banned ", "send no_permission ",
	})
	if p := all[0]; p.Since.Year() != 2026 || p.Since.Month() != 1 || !p.ByOperator() || p.Paused() != account ||
		all[1].Paused() != one || all[3].Paused().TemplateID != "other" || all[3].ByOperator() {
		t.Errorf("%+v", all)
	}
	expect("resumed", scopes(f.store.Resume(t.Context(), account)), []string{"operator operator b", "send quota_day "})
	expect("resumed again", scopes(f.store.Resume(t.Context(), account)), nil)
	expect("resumed the template", scopes(f.store.Resume(t.Context(), one)), []string{"operator:" + template + " operator c"})
	expect("left", scopes(f.store.Pauses(t.Context())), []string{"template:other template_banned ", "send no_permission "})
	expect("settle", scopes(f.store.pauses(t.Context(), "=")), []string{"settle unsettled "})
}
