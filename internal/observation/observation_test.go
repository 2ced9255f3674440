package observation

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

const appid = "wx00000000000000aa"

// TestQuotas: the latest answer of each endpoint stands.
func TestQuotas(t *testing.T) {
	s := Store{DB: dbtest.New(t)}
	for _, q := range []Quota{
		{AppID: appid, Endpoint: "/b", Limit: 10, Remaining: 9},
		{AppID: appid, Endpoint: "/a", Limit: 10, Remaining: 7},
		{AppID: appid, Endpoint: "/b", Limit: 20, Remaining: 3},
	} {
		if err := s.SaveQuota(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Quotas(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []Quota{
		{AppID: appid, Endpoint: "/a", Limit: 10, Remaining: 7, AskedAt: time.Now()},
		{AppID: appid, Endpoint: "/b", Limit: 20, Remaining: 3, AskedAt: time.Now()},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateApproxTime(time.Minute)); diff != "" {
		t.Errorf("quotas (-want +got):\n%s", diff)
	}
}

// TestProblems: one that is fixed goes, one that stays keeps its since, one that nobody confirms is
// forgotten, and other accounts keep theirs.
func TestProblems(t *testing.T) {
	db := dbtest.New(t)
	s := Store{DB: db}
	save := func(appid string, problems ...Problem) {
		t.Helper()
		if err := s.SaveProblems(t.Context(), appid, problems); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want ...string) {
		t.Helper()
		problems, err := s.Problems(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := []string(nil)
		for _, p := range problems {
			age := time.Since(p.Since).Round(time.Minute).String()
			got = append(got, strings.Join([]string{p.AppID, p.Reason, p.Subject, p.Text, age}, " "))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("problems (-want +got):\n%s", diff)
		}
	}
	const other = "wx00000000000000bb"
	missing := Problem{Reason: "template_missing", Subject: "订单", Text: "x", Cure: "y"}
	wrong := Problem{Reason: "wrong_secret", Text: "x", Cure: strings.Repeat("长", 2000)}
	save(appid, missing, wrong)
	save(other, missing)
	db.MustExecContext(t.Context(),
		`UPDATE account_problem SET since = CURRENT_TIMESTAMP(3) - INTERVAL 1 HOUR`)
	missing.Text = "z"
	save(appid, missing)
	expect(appid+" template_missing 订单 z 1h0m0s", other+" template_missing 订单 x 1h0m0s")
	db.MustExecContext(t.Context(),
		`UPDATE account_problem SET seen_at = CURRENT_TIMESTAMP(3) - INTERVAL 16 MINUTE`)
	expect()
	save(appid, missing)
	expect(appid + " template_missing 订单 z 0s")
	save(appid)
	expect()
}

// TestSaveProblem: what a login has found stands beside what checks find, and these do not take it back.
func TestSaveProblem(t *testing.T) {
	s := Store{DB: dbtest.New(t)}
	found := Problem{AppID: "wx1", Reason: ReasonNoUnionID, Text: "text", Cure: "cure"}
	for range 2 {
		if err := s.SaveProblem(t.Context(), found); err != nil {
			t.Fatal(err)
		}
	}
	for _, checked := range [][]Problem{{{AppID: "wx1", Reason: "token", Text: "x", Cure: "y"}}, nil} {
		if err := s.SaveProblems(t.Context(), "wx1", checked); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Problems(t.Context())
	if err != nil || len(got) != 1 || got[0].Reason != ReasonNoUnionID || got[0].Cure != "cure" {
		t.Errorf("%+v, %v", got, err)
	}
}
