package grants

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"
	"golang.org/x/sync/errgroup"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/wechat/push"
)

const (
	mini     = "wx0b00000000000001"
	person   = "oPerson"
	template = "order"
)

// watcher notes whom it was told of.
type watcher struct {
	mu   sync.Mutex
	told []Grant
}

func (w *watcher) Granted(_ context.Context, appid string, granted []Grant) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if appid == mini {
		w.told = append(w.told, granted...)
	}
}

func ledgerOn(db *sqlx.DB, source Source) (*Ledger, *watcher) {
	w := new(watcher)
	return New(Config{DB: db, Sources: map[string]Source{mini: source}, Watcher: w,
		Logger: slog.New(slog.DiscardHandler)}), w
}

func newLedger(t *testing.T, source Source) (*Ledger, *watcher, *sqlx.DB) {
	t.Helper()
	db := dbtest.New(t)
	l, w := ledgerOn(db, source)
	return l, w, db
}

func choice(who, result string, at time.Time) push.Choice {
	return push.Choice{OpenID: who, TemplateID: template, Result: result, Scene: "0", At: at}
}

func (l *Ledger) mustPopup(t *testing.T, choices ...push.Choice) {
	t.Helper()
	if err := l.Popup(t.Context(), mini, choices); err != nil {
		t.Fatal(err)
	}
}

func (l *Ledger) mustSettle(t *testing.T, uses ...Use) {
	t.Helper()
	err := database.InTx(t.Context(), l.cfg.DB, func(ctx context.Context, tx *sqlx.Tx) error {
		if err := l.Settle(ctx, tx, mini, uses); err != nil {
			return err
		}
		ids := make([]int64, len(uses))
		for i, u := range uses {
			ids[i] = u.RequestID
		}
		return release(ctx, tx, ids...)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// release ends attempts, as the queue does.
func release(ctx context.Context, tx *sqlx.Tx, ids ...int64) error {
	_, err := database.ExecIn(ctx, tx, `DELETE FROM send_attempt WHERE request_id IN (?)`, ids)
	return err
}

func (l *Ledger) reserve(ctx context.Context, attempts ...Attempt) (may []bool, err error) {
	err = database.InTx(ctx, l.cfg.DB, func(ctx context.Context, tx *sqlx.Tx) error {
		may, err = l.Reserve(ctx, tx, mini, attempts)
		return err
	})
	return may, err
}

func (l *Ledger) mustReserve(t *testing.T, ids ...int64) []bool {
	t.Helper()
	var attempts []Attempt
	for _, id := range ids {
		attempts = append(attempts, Attempt{Grant{person, template}, id, "token"})
	}
	may, err := l.reserve(t.Context(), attempts...)
	if err != nil {
		t.Fatal(err)
	}
	return may
}

func (l *Ledger) wantLeft(t *testing.T, step string, want int) {
	t.Helper()
	got, err := l.Available(t.Context(), mini, []Grant{{"stranger", template}, {person, template}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{0, want}, got); diff != "" {
		t.Errorf("%s: available (-want +got):\n%s", step, diff)
	}
}

func wantChecked(t *testing.T, db *sqlx.DB, grants int) {
	t.Helper()
	n, err := Check(t.Context(), db, mini, func(d Difference) error {
		t.Errorf("result and ledger differ: %+v", d)
		return nil
	})
	if err != nil || n != grants {
		t.Errorf("%d grants were checked (%v), want %d", n, err, grants)
	}
}

// TestPushesAndMessages: many people, several instances, pushes that come late, twice and in any
// order, while messages are settled; in the end each number is WeChat's, and deadlocks between
// pushes and settling cost nothing.
func TestPushesAndMessages(t *testing.T) {
	_, _, db := newLedger(t, Events)
	const people, seed = 30, 7
	rnd := rand.New(rand.NewPCG(seed, 0))
	type event struct {
		who string
		entry
	}
	var events []event
	want := make(map[string]int)
	for n := range people {
		w := world{rnd: rnd, at: start().Add(time.Duration(n) * time.Second),
			skew: func() time.Duration { return 0 }}
		w.play(12, func() time.Duration { return doubt + time.Duration(1+rnd.IntN(3600))*time.Second })
		who := fmt.Sprint("o", n)
		want[who] = w.left
		for _, e := range w.entries {
			events = append(events, event{who, e})
			if rnd.IntN(3) == 0 {
				events = append(events, event{who, e}) // a repetition
			}
		}
	}
	rnd.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	g, ctx := errgroup.WithContext(t.Context())
	for part := range slices.Chunk(events, (len(events)+3)/4) {
		l, _ := ledgerOn(db, Events)
		g.Go(func() error {
			for batch := range slices.Chunk(part, 5) {
				var accepts, changes []push.Choice
				var uses []Use
				for _, e := range batch {
					switch e.Kind {
					case kindAccept:
						accepts = append(accepts, choice(e.who, "accept", e.HappenedAt))
					case kindOff:
						changes = append(changes, choice(e.who, "reject", e.HappenedAt))
					default:
						uses = append(uses, Use{Grant: Grant{e.who, template}, At: e.HappenedAt,
							RequestID: 1, Refused: e.Kind == kindRefused})
					}
				}
				settle := func(ctx context.Context, tx *sqlx.Tx) error {
					return l.Settle(ctx, tx, mini, uses)
				}
				if err := errors.Join(l.Popup(ctx, mini, accepts), l.Change(ctx, mini, changes),
					database.InTx(ctx, db, settle)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	l, _ := ledgerOn(db, Events)
	for who, left := range want {
		got, err := l.Available(t.Context(), mini, []Grant{{who, template}})
		if err != nil {
			t.Fatal(err)
		}
		if got[0] != left {
			t.Errorf("%s has %d left, WeChat has %d", who, got[0], left)
		}
	}
	wantChecked(t, db, people)
}

// TestReserve: what is under way or in doubt is not available to others, also not to an instance
// that has taken over; what was given back is.
func TestReserve(t *testing.T) {
	l, _, db := newLedger(t, Events)
	if diff := cmp.Diff([]bool{false}, l.mustReserve(t, 1)); diff != "" {
		t.Errorf("nobody has accepted (-want +got):\n%s", diff)
	}
	at := time.Now().Add(-time.Hour).Truncate(time.Second)
	l.mustPopup(t, choice(person, "accept", at), choice(person, "accept", at.Add(time.Second)))
	l.wantLeft(t, "two acceptances", 2)
	if diff := cmp.Diff([]bool{true, true, false}, l.mustReserve(t, 1, 2, 3)); diff != "" {
		t.Errorf("two of three (-want +got):\n%s", diff)
	}
	successor, _ := ledgerOn(db, Events)
	successor.wantLeft(t, "both are under way", 0)
	l.mustSettle(t, Use{Grant: Grant{person, template}, RequestID: 1, At: time.Now()})
	l.wantLeft(t, "one was sent", 0)
	err := database.InTx(t.Context(), db, func(ctx context.Context, tx *sqlx.Tx) error {
		return release(ctx, tx, 2)
	})
	if err != nil {
		t.Fatal(err)
	}
	l.wantLeft(t, "the other was not", 1)
	wantChecked(t, db, 1)
}

// TestReserveFails: a database that fails in the middle of it is an error, and nothing is reserved.
func TestReserveFails(t *testing.T) {
	l, _, db := newLedger(t, Events)
	l.mustPopup(t, choice(person, "accept", time.Now().Add(-time.Hour).Truncate(time.Second)))
	db.MustExec(`ALTER TABLE send_attempt RENAME TO elsewhere`)
	_, err := l.reserve(t.Context(), Attempt{Grant{person, template}, 1, "token"})
	if err == nil {
		t.Error("reserved where no attempt can be read")
	}
	db.MustExec(`ALTER TABLE elsewhere RENAME TO send_attempt`)
	l.wantLeft(t, "nothing was reserved", 1)
}

// TestReserveAtOnce: however many want a grant at the same time, no more get it than there are.
func TestReserveAtOnce(t *testing.T) {
	l, _, db := newLedger(t, Events)
	const grants, wanted = 5, 40
	for n := range grants {
		l.mustPopup(t, choice(person, "accept", time.Now().Add(time.Duration(n)*-time.Minute)))
	}
	var mu sync.Mutex
	got := 0
	g, ctx := errgroup.WithContext(t.Context())
	for n := range wanted {
		g.Go(func() error {
			may, err := l.reserve(ctx, Attempt{Grant{person, template}, int64(n + 1), "token"})
			mu.Lock()
			defer mu.Unlock()
			if err == nil && may[0] {
				got++
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if got != grants {
		t.Errorf("%d of %d were allowed, want %d", got, wanted, grants)
	}
	wantChecked(t, db, 1)
}

// TestVoidAttempt: an attempt in doubt from before a refusal holds nothing of what was accepted
// since, and giving it back gives nothing.
func TestVoidAttempt(t *testing.T) {
	l, _, db := newLedger(t, Events)
	old := time.Now().Add(-time.Hour)
	l.mustPopup(t, choice(person, "accept", old), choice(person, "accept", old.Add(-time.Minute)))
	l.mustReserve(t, 1, 2)
	_, err := db.ExecContext(t.Context(), `
		UPDATE send_attempt
		   SET begun_at = CURRENT_TIMESTAMP(3) - INTERVAL 10 MINUTE - INTERVAL request_id SECOND`)
	if err != nil {
		t.Fatal(err)
	}
	l.mustSettle(t, Use{Grant: Grant{person, template}, RequestID: 1, At: old, Refused: true})
	l.wantLeft(t, "refused", 0)
	l.mustPopup(t, choice(person, "accept", time.Now()))
	l.wantLeft(t, "accepted again", 1)
	err = database.InTx(t.Context(), db, func(ctx context.Context, tx *sqlx.Tx) error {
		return release(ctx, tx, 2)
	})
	if err != nil {
		t.Fatal(err)
	}
	l.wantLeft(t, "the old one is given back", 1)
}

// TestSettleOnce: an attempt counts once, and not at all where its transaction is rolled back; the
// next attempt of the same request counts for itself.
func TestSettleOnce(t *testing.T) {
	l, w, db := newLedger(t, Events)
	at := time.Now().Truncate(time.Millisecond)
	for n := range 4 {
		l.mustPopup(t, choice(person, "accept", at.Add(time.Duration(n)*-time.Minute)))
	}
	use := Use{Grant: Grant{person, template}, RequestID: 1, At: at}
	failure := errors.New("the outcome was not written")
	err := database.InTx(t.Context(), db, func(ctx context.Context, tx *sqlx.Tx) error {
		if err := l.Settle(ctx, tx, mini, []Use{use}); err != nil {
			return err
		}
		return failure
	})
	if !errors.Is(err, failure) {
		t.Fatal(err)
	}
	l.wantLeft(t, "rolled back", 4)
	l.mustSettle(t, use)
	l.mustSettle(t, use, use)
	l.wantLeft(t, "settled three times", 3)
	use.At = at.Add(time.Second)
	l.mustSettle(t, use)
	l.wantLeft(t, "a second attempt", 2)
	if len(w.told) != 4 || w.told[0] != (Grant{person, template}) {
		t.Errorf("the watcher was told of %v", w.told)
	}
}

// TestKinds: whether messages use a grant up is known from the templates or learnt from a message.
func TestKinds(t *testing.T) {
	l, _, db := newLedger(t, Events)
	at := time.Now().Add(-time.Minute)
	l.mustPopup(t, choice(person, "accept", at))
	l.wantLeft(t, "not known", 1)
	use := Use{Grant: Grant{person, template}, RequestID: 1, At: time.Now(), Known: true,
		LongTerm: true}
	l.mustSettle(t, use)
	l.wantLeft(t, "learnt from a message", Unlimited)
	l.cfg.LongTerm = func(_, templateID string) (bool, bool) { return templateID == "news", true }
	l.mustPopup(t, push.Choice{OpenID: person, TemplateID: "news", Result: "acceptWithAudio", At: at})
	got, err := l.Lookup(t.Context(), mini, person)
	if err != nil || len(got) != 2 || got[0].TemplateID != "news" || got[0].Kind != "long_term" ||
		got[0].Available != Unlimited || got[1].Kind != "long_term" {
		t.Errorf("%+v, %v", got, err)
	}
	if err := l.Change(t.Context(), mini, []push.Choice{choice(person, "reject", time.Now())}); err != nil {
		t.Fatal(err)
	}
	l.wantLeft(t, "switched off", 0)
	wantChecked(t, db, 2)
}

// TestSources: each source counts what it should and nothing else.
func TestSources(t *testing.T) {
	for source, want := range map[Source]int{Events: 1, Reports: 2, Both: 2, None: 0, "": 0} {
		t.Run(string(source), func(t *testing.T) {
			l, w, db := newLedger(t, source)
			at := time.Now().Add(-time.Hour).UTC()
			l.mustPopup(t, choice(person, "accept", at))
			report(t, db, "1", "accept", at.Add(time.Minute))
			report(t, db, "2", "accept", at.Add(30*time.Minute))
			if _, err := l.takeReports(t.Context(), []string{mini}); err != nil {
				t.Fatal(err)
			}
			l.wantLeft(t, "an event, and two reports", want)
			if told := len(w.told) > 0; told != (want > 0) {
				t.Errorf("the watcher was told of %v", w.told)
			}
			var left int
			if err := db.GetContext(t.Context(), &left, `SELECT COUNT(*) FROM subscription_report`); err != nil || left != 0 {
				t.Errorf("%d reports are left (%v)", left, err)
			}
		})
	}
}

func report(t *testing.T, db *sqlx.DB, key, result string, at any) {
	t.Helper()
	_, err := db.ExecContext(t.Context(), `
		INSERT INTO subscription_report (appid, openid, template_id, result, report_key, accepted_at)
		VALUES (?, ?, ?, ?, ?, ?)`, mini, person, template, result, key, at)
	if err != nil {
		t.Fatal(err)
	}
}

// TestReports: each word for an acceptance counts once, whenever it is inserted again, and what is
// none counts nothing.
func TestReports(t *testing.T) {
	l, _, db := newLedger(t, Reports)
	take := func() {
		t.Helper()
		if _, err := l.takeReports(t.Context(), []string{mini}); err != nil {
			t.Fatal(err)
		}
	}
	words := []string{"accept", "acceptWithAudio", "acceptWithAlert", "acceptWithForcePush", "reject",
		"ban", "filter", "", "Accept"}
	for range 2 {
		for _, word := range words {
			report(t, db, "key "+word, word, nil)
		}
		take()
	}
	l.wantLeft(t, "each twice", 4)
	report(t, db, "future", "accept", time.Now().Add(24*time.Hour).UTC())
	take()
	var late int
	err := db.GetContext(t.Context(), &late,
		`SELECT COUNT(*) FROM grant_event WHERE happened_at > CURRENT_TIMESTAMP(3)`)
	if err != nil || late != 0 {
		t.Errorf("%d entries are in the future (%v)", late, err)
	}
	for n := range maxRows + 1 {
		report(t, db, fmt.Sprint(n), "accept", nil)
	}
	take()
	take()
	l.wantLeft(t, "more than a page", 5+maxRows+1)
	wantChecked(t, db, 1)
}

// TestRun: the loop takes in what is inserted while it runs, in two instances at once.
func TestRun(t *testing.T) {
	l, _, db := newLedger(t, Reports)
	other, _ := ledgerOn(db, Reports)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { l.Run(ctx) })
	running.Go(func() { other.Run(ctx) })
	defer running.Wait()
	defer cancel()
	const reports = 20
	for n := range reports {
		report(t, db, fmt.Sprint(n), "accept", nil)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		got, err := l.Available(t.Context(), mini, []Grant{{person, template}})
		if err != nil {
			t.Fatal(err)
		}
		if got[0] == reports {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d reports were taken in", got[0], reports)
		}
	}
	idle, _ := ledgerOn(db, None)
	idle.Run(t.Context()) // returns: nothing is counted
}

// TestIdleReports: while nobody reports, a look costs a few entries of an index, whatever else the
// table has.
func TestIdleReports(t *testing.T) {
	l, _, db := newLedger(t, Reports)
	for n := range 500 { // of an account that no instance has
		_, err := db.ExecContext(t.Context(), `
			INSERT INTO subscription_report (appid, openid, template_id, result, report_key)
			VALUES ('wx0b00000000000002', 'o', 't', 'accept', ?)`, n)
		if err != nil {
			t.Fatal(err)
		}
	}
	db.SetMaxOpenConns(1) // the counters are a session's
	before := entriesRead(t, db)
	if _, err := l.takeReports(t.Context(), []string{mini}); err != nil {
		t.Fatal(err)
	}
	if read := entriesRead(t, db) - before; read > 3 {
		t.Errorf("%d entries were read for nothing", read)
	}
}

func entriesRead(t *testing.T, db *sqlx.DB) (n int) {
	t.Helper()
	var counters []struct {
		Name  string `db:"Variable_name"`
		Value int    `db:"Value"`
	}
	err := db.SelectContext(t.Context(), &counters, `
		SHOW SESSION STATUS WHERE Variable_name IN ('Handler_read_key', 'Handler_read_next',
			'Handler_read_first', 'Handler_read_rnd_next', 'Handler_read_prev', 'Handler_read_rnd')`)
	if err != nil {
		t.Fatal(err)
	}
	if len(counters) == 0 {
		t.Skip("this server does not count what it reads")
	}
	for _, c := range counters {
		if c.Name != "Handler_read_rnd_next" { // SHOW itself reads a table
			n += c.Value
		}
	}
	return n
}

// TestErased: what is on its way when a person is erased does not bring them back.
func TestErased(t *testing.T) {
	l, _, db := newLedger(t, Both)
	l.mustPopup(t, choice(person, "accept", start()), choice("oOther", "accept", start()))
	l.mustReserve(t, 1)
	report(t, db, "under way", "accept", nil)
	err := database.InTx(t.Context(), db, func(ctx context.Context, tx *sqlx.Tx) error {
		if err := l.erased.Remember(ctx, tx, mini, person); err != nil {
			return err
		}
		return Forget(ctx, tx, mini, person)
	})
	if err != nil {
		t.Fatal(err)
	}
	l.mustPopup(t, choice(person, "accept", time.Now()), choice("oOther", "accept", time.Now()))
	l.mustSettle(t, Use{Grant: Grant{person, template}, RequestID: 1, At: time.Now()})
	report(t, db, "late", "accept", nil)
	if _, err := l.takeReports(t.Context(), []string{mini}); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"subscription_grant", "grant_event", "subscription_report"} {
		var rows int
		if err := db.GetContext(t.Context(), &rows,
			`SELECT COUNT(*) FROM `+table+` WHERE openid = ?`, person); err != nil || rows != 0 {
			t.Errorf("%s has %d rows of an erased person (%v)", table, rows, err)
		}
	}
	got, err := l.Available(t.Context(), mini, []Grant{{"oOther", template}})
	if err != nil || got[0] != 2 {
		t.Errorf("another person has %v left (%v), want 2", got, err)
	}
}

// TestCheck finds what does not agree, on any page, and a ledger without a result.
func TestCheck(t *testing.T) {
	l, _, db := newLedger(t, Events)
	const people = checkPage + 100
	var choices []push.Choice
	for n := range people {
		choices = append(choices, choice(fmt.Sprintf("o%04d", n), "accept", start()))
	}
	l.mustPopup(t, choices...)
	wantChecked(t, db, people)
	for _, stmt := range []string{
		`UPDATE subscription_grant SET remaining = 7 WHERE openid = 'o0003'`,
		`UPDATE subscription_grant SET remaining = 0 WHERE openid = 'o0555'`,
		`DELETE FROM subscription_grant WHERE openid = 'o0599'`,
		`INSERT INTO subscription_grant (appid, openid, template_id, remaining)
		 VALUES ('` + mini + `', 'zzz', '` + template + `', 2)`,
	} {
		if _, err := db.ExecContext(t.Context(), stmt); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	n, err := Check(t.Context(), db, mini, func(d Difference) error {
		got = append(got, fmt.Sprintf("%s %d %t %d", d.OpenID, d.Remaining.Int64, d.Remaining.Valid, d.Ledger))
		return nil
	})
	want := []string{"o0003 7 true 1", "o0555 0 true 1", "o0599 0 false 1", "zzz 2 true 0"}
	if diff := cmp.Diff(want, got); diff != "" || n != people+1 || err != nil {
		t.Errorf("%d grants, %v (-want +got):\n%s", n, err, diff)
	}
}
