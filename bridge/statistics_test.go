package bridge

import (
	"fmt"
	"testing"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

// TestFreshMap: a lookup of many people reads their entries alone, although the server's statistics
// are those of the empty tables.
func TestFreshMap(t *testing.T) {
	db := dbtest.New(t)
	db.SetMaxOpenConns(1) // the counters are a session's
	const users, asked = 5000, 600
	for _, table := range []string{"mini_user", "follower"} {
		if _, err := db.Exec(`ALTER TABLE ` + table + ` STATS_AUTO_RECALC = 0`); err != nil {
			t.Skipf("this server keeps its statistics up to date otherwise: %v", err)
		}
		tx := db.MustBegin()
		for i := range users {
			_, err := tx.Exec(`INSERT INTO `+table+` (appid, openid, unionid) VALUES (?, ?, ?)`,
				map[string]string{"mini_user": mp, "follower": oa}[table],
				fmt.Sprintf("o%07d", i*7919%users), fmt.Sprintf("u%07d", i))
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	exec(t, db, `UPDATE follower SET subscribed = 1`)
	var people []Recipient
	for i := range asked {
		people = append(people, Recipient{UnionID: fmt.Sprintf("u%07d", i*31%users)})
	}
	m := New(db)
	for name, resolve := range map[string]func() ([]Resolution, error){
		"mini program":     func() ([]Resolution, error) { return m.ResolveMini(t.Context(), mp, people) },
		"official account": func() ([]Resolution, error) { return m.Resolve(t.Context(), oa, people) },
	} {
		before := handlerReads(t, db)
		found, err := resolve()
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range found {
			if r.Reachability != Reachable {
				t.Fatalf("%s: %+v is %+v", name, people[i], r)
			}
		}
		if read := handlerReads(t, db) - before; read > 4*asked {
			t.Errorf("%s: %d entries were read for %d people", name, read, asked)
		}
	}
}
