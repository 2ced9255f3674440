package bridge

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

func export(t *testing.T, m *Map, appid string) []MiniUser {
	t.Helper()
	var got []MiniUser
	if err := m.ExportMiniUsers(t.Context(), appid, func(u MiniUser) error { got = append(got, u); return nil }); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestImportMiniUsers(t *testing.T) {
	early, late := time.Unix(1_700_000_000, 0).UTC(), time.Unix(1_800_000_000, 123_000_000).UTC()
	db := dbtest.New(t)
	m := New(db)
	user := func(openid, unionid string,
		seen time.Time) MiniUser {
		return MiniUser{mp, openid, unionid, seen}
	}
	for _, step := range []struct {
		name      string
		users     []MiniUser
		overwrite bool
		found     []Contradiction
		want      []MiniUser
	}{
		{"new ones",
			[]MiniUser{user("b", "uB", late), user("a", "", early), {mp2, "a", "uA", early}},
			false, nil,
			[]MiniUser{user("a", "", early), user("b", "uB", late), {mp2, "a", "uA", early}}},
		{"again, with less", []MiniUser{user("b", "", early), user("a", "", time.Time{})}, false,
			nil,
			[]MiniUser{user("a", "", early), user("b", "uB", late), {mp2, "a", "uA", early}}},
		{"again, with less, overwriting", []MiniUser{user("b", "", early)}, true, nil,
			[]MiniUser{user("a", "", early), user("b", "uB", late), {mp2, "a", "uA", early}}},
		{"a unionid appears, another contradicts",
			[]MiniUser{user("a", "uA", late), user("b", "uX", late)}, false,
			[]Contradiction{{1, "uB"}},
			[]MiniUser{user("a", "uA", late), user("b", "uB", late), {mp2, "a", "uA", early}}},
		{"contradicting each other",
			[]MiniUser{user("c", "u1", late), user("c", "", late), user("c", "u2", late)}, false,
			[]Contradiction{{2, "u1"}},
			[]MiniUser{user("a", "uA", late), user("b", "uB", late), user("c", "u1", late),
				{mp2, "a", "uA", early}}},
		{"overwriting", []MiniUser{user("b", "uX", early)}, true, nil,
			[]MiniUser{user("a", "uA", late), user("b", "uX", late), user("c", "u1", late),
				{mp2, "a", "uA", early}}},
		{"nobody", nil, false, nil,
			[]MiniUser{user("a", "uA", late), user("b", "uX", late), user("c", "u1", late),
				{mp2, "a", "uA", early}}},
	} {
		found, err := m.ImportMiniUsers(t.Context(), step.users, step.overwrite)
		if err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if diff := cmp.Diff(step.found, found); diff != "" {
			t.Errorf("%s: contradictions (-want +got):\n%s", step.name, diff)
		}
		if diff := cmp.Diff(step.want, export(t, m, "")); diff != "" {
			t.Errorf("%s: mini_user (-want +got):\n%s", step.name, diff)
		}
	}
	if _, err := m.ImportMiniUsers(t.Context(), make([]MiniUser, ImportMaxUsers+1), false); err == nil {
		t.Error("more than a statement holds was taken")
	}
	if _, err := m.ImportMiniUsers(t.Context(), []MiniUser{user("new", "", time.Time{})}, false); err != nil {
		t.Fatal(err)
	}
	if got := export(t, m, mp); time.Since(got[3].SeenAt) > time.Hour {
		t.Errorf("who comes without a moment was seen at %v, want now", got[3].SeenAt)
	}
}

// TestExportPages: an export goes over its pages' ends, in the order of the key, and stops where it
// is told.
func TestExportPages(t *testing.T) {
	m := New(dbtest.New(t))
	const n = 2*exportPage + 1
	var users, want []MiniUser
	for i := range n {
		users = append(users,
			MiniUser{mp, fmt.Sprintf("o%06d", i), "", time.Unix(1_700_000_000, 0).UTC()})
	}
	want = users
	for len(users) > 0 {
		part := users[:min(len(users), ImportMaxUsers)]
		users = users[len(part):]
		if _, err := m.ImportMiniUsers(t.Context(), part, false); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, export(t, m, mp)); diff != "" {
		t.Errorf("export (-want +got):\n%s", diff)
	}
	if got := export(t, m, mp2); got != nil {
		t.Errorf("a mini program without users has %v", got)
	}
	enough, calls := errors.New("enough"), 0
	err := m.ExportMiniUsers(t.Context(), "", func(MiniUser) error { calls++; return enough })
	if !errors.Is(err, enough) || calls != 1 {
		t.Errorf("the export ended with %v after %d users", err, calls)
	}
}
