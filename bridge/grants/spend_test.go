package grants

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// numberOf reads a grant as it is stored.
func numberOf(t *testing.T, db *sqlx.DB, openid string) (r grantRow) {
	t.Helper()
	rows, err := readGrants(t.Context(), db, mini, []Grant{{openid, template}})
	if err != nil || len(rows) != 1 {
		t.Fatalf("%d grants of %s, %v", len(rows), openid, err)
	}
	return rows[0]
}

// TestSpend: however a message and what else happened to a grant lie in time, however often its outcome
// is settled, and whatever is known of the template, the grant comes to what the whole ledger comes to.
func TestSpend(t *testing.T) {
	const people, rounds = 80, 5
	l, _, db := newLedger(t, Both)
	rnd := rand.New(rand.NewPCG(11, 0))
	now := time.Now().UTC().Truncate(time.Millisecond).Add(-time.Minute)
	around := func() time.Time {
		return now.Add(time.Duration(rnd.Int64N(10_000)-5_000) * time.Millisecond)
	}
	kinds := []string{kindAccept, kindAccept, kindOff, kindRefused, kindOn}
	key := 0
	for round := range rounds {
		var entries []entry
		var uses []Use
		for n := range people {
			who := Grant{fmt.Sprintf("o%02d", n), template}
			add := func(kind string, at time.Time) {
				key++
				entries = append(entries, entry{OpenID: who.OpenID, TemplateID: who.TemplateID,
					Key: fmt.Sprint(key), Kind: kind, HappenedAt: at, ArrivedAt: at.Add(time.Second),
					Source: []string{sourceEvent, sourceReport}[rnd.IntN(2)]})
			}
			for range 1 + rnd.IntN(3) {
				add(kindAccept, now.Add(-time.Hour))
			}
			for range rnd.IntN(4) {
				add(kinds[rnd.IntN(len(kinds))], around())
			}
			for range rnd.IntN(4) {
				key++
				uses = append(uses, Use{Grant: who, RequestID: int64(key), At: around(),
					Known: n%7 > 0, LongTerm: rnd.IntN(4) == 0, Refused: rnd.IntN(20) == 0})
			}
		}
		err := database.InTx(t.Context(), db, func(ctx context.Context, tx *sqlx.Tx) error {
			return writer{Ledger: l, tx: tx, appid: mini}.record(ctx, entries)
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range uses {
			again, more := max(0, rnd.IntN(5)-2), max(0, rnd.IntN(4)-2)
			l.mustSettle(t, uses[max(0, i-again):min(len(uses), i+1+more)]...)
			_, err := Check(t.Context(), db, mini, func(d Difference) error {
				t.Errorf("round %d: result and ledger differ: %+v", round, d)
				return nil
			})
			if err != nil || t.Failed() {
				t.Fatal(err)
			}
		}
	}
}

// TestSpendReadsNoLedger: a message after the newest acceptance costs as much after many messages as
// after none, while one that may be older is computed.
func TestSpendReadsNoLedger(t *testing.T) {
	l, _, db := newLedger(t, Events)
	const entries = 500
	at := time.Now().UTC().Add(-time.Hour).Truncate(time.Second)
	for n := range entries {
		_, err := db.Exec(`
			INSERT INTO grant_event (appid, openid, template_id, event_key, kind, source, happened_at)
			VALUES (?, ?, ?, ?, 'accept', 'event', ?)`, mini, person, template, fmt.Sprint("old", n), at)
		if err != nil {
			t.Fatal(err)
		}
	}
	l.mustPopup(t, choice(person, "accept", at))
	l.wantLeft(t, "accepted", entries+1)
	db.SetMaxOpenConns(1) // the counters are a session's
	spend := func(id int64, at time.Time) int {
		before := entriesRead(t, db)
		l.mustSettle(t, Use{Grant: Grant{person, template}, RequestID: id, At: at, Known: true})
		return entriesRead(t, db) - before
	}
	if read := spend(1, at.Add(time.Minute)); read > 20 {
		t.Errorf("%d entries were read for a message that is the last thing that happened", read)
	}
	spend(2, at.Add(-time.Minute)) // some servers scan the table for it, which is not counted
	l.wantLeft(t, "one after the acceptances, and one before them", entries)
	wantChecked(t, db, 1)
}

// TestSpendLearns: a grant that another version computed has no accepted_at. It is computed once, and
// the type of the template is stored with the first message.
func TestSpendLearns(t *testing.T) {
	l, _, db := newLedger(t, Events)
	at := time.Now().UTC().Add(-time.Hour).Truncate(time.Second)
	l.mustPopup(t, choice(person, "accept", at), choice(person, "accept", at.Add(time.Second)))
	if _, err := db.Exec(`UPDATE subscription_grant SET accepted_at = NULL`); err != nil {
		t.Fatal(err)
	}
	use := Use{Grant: Grant{person, template}, RequestID: 1, At: at.Add(time.Minute), Known: true}
	l.mustSettle(t, use)
	r := numberOf(t, db, person)
	if r.Remaining != 1 || r.Kind.String != kindOneTime || !r.AcceptedAt.Time.Equal(at.Add(time.Second)) {
		t.Errorf("%+v", r)
	}
	use.RequestID, use.At = 2, at.Add(2*time.Minute)
	l.mustSettle(t, use, use)
	if r := numberOf(t, db, person); r.Remaining != 0 {
		t.Errorf("%+v after a message that was settled twice", r)
	}
	wantChecked(t, db, 1)
}
