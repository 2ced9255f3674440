package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/devtools/checker"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

type record struct {
	checker.Request
	key       string // dedup_key; empty: none
	recipient string // which of the columns names the person: unionid, mini_openid or openid
	standing  standing
	priority  int
	expires   time.Duration // after the INSERT; 0: never
	short     bool          // data as {"thing1": "x"}
	way       way
}

// standing is what the recipient is to the official account.
type standing string

const (
	follows standing = "follows"
	late    standing = "late"    // follows only while the round is running
	never   standing = "never"   // will not follow
	refuses standing = "refuses" // has switched messages off
	gone    standing = "gone"    // has left, and the map does not know yet
)

// parts gives everybody a part. Those who follow from the start are the persons below followers.
func parts() map[standing][]int {
	split := map[standing][]int{}
	for person := range followers {
		part := cmp.Or(map[int]standing{7: refuses, 13: gone}[person%20], follows)
		split[part] = append(split[part], person)
	}
	const others = 12
	for i := range others {
		split[late] = append(split[late], followers+i)
		split[never] = append(split[never], followers+others+i)
	}
	return split
}

// way is what a request says of the accounts that may send it.
type way struct{ appid, route string }

// drawWay leaves it to the alias in four of ten cases: it names the official account and then the mini
// program.
func drawWay(rnd *rand.Rand) way {
	ways := [10]way{
		4: {appid: harness.MiniAppID}, 5: {appid: harness.MiniAppID}, 6: {appid: harness.AppID},
		7: {appid: harness.AppID, route: "official,mini"},
		8: {appid: harness.MiniAppID, route: "mini,official"}, 9: {route: "mini,official"},
	}
	return ways[rnd.IntN(len(ways))]
}

// openid is the account whose openid names the person; "": no openid can.
func (w way) openid() string {
	if w.appid == "" && w.route != "" {
		return ""
	}
	return cmp.Or(w.appid, harness.AppID)
}

type producer struct {
	name     string
	db       *sqlx.DB
	rnd      *rand.Rand
	platform *platform
	persons  map[standing][]int
	mini     bool            // the mini program sends too
	door     *doorClient     // nil: it inserts
	records  []*record       // once run has returned
	giveUp   context.Context // after its end nothing is tried again
	cancels  sync.WaitGroup
	refusals sync.Map // the texts of what the server refused
}

func (p *producer) run(ctx context.Context) {
	tick := time.NewTicker(40 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		if p.door != nil {
			p.postAll(p.batch())
		} else {
			p.insert(p.batch())
		}
		<-tick.C
	}
	p.cancels.Wait()
}

func (p *producer) batch() []*record {
	batch := make([]*record, 1+p.rnd.IntN(4)*p.rnd.IntN(2))
	keyed := p.rnd.Float64() < 0.6
	for i := range batch {
		batch[i] = p.request(len(p.records)+i, keyed)
	}
	return batch
}

func (p *producer) request(serial int, keyed bool) *record {
	r := &record{short: p.rnd.IntN(2) == 0, priority: p.rnd.IntN(3)}
	r.Order = fmt.Sprintf("%s-%d", p.name, serial)
	if keyed {
		r.key = "key " + r.Order
	}
	r.standing = p.standing()
	persons := p.persons[r.standing]
	person := persons[p.rnd.IntN(len(persons))]
	r.Recipient = wechatsim.Identity{Person: person, UnionID: p.platform.UnionID(person)}
	columns := []string{"unionid", "mini_openid", "mini_openid", "unionid", "openid"}
	r.recipient = columns[p.rnd.IntN(len(columns))]
	if p.mini {
		r.way = drawWay(p.rnd)
	}
	if r.way.openid() == "" && r.recipient == "openid" {
		r.recipient = "mini_openid"
	}
	stranger := r.standing == late || r.standing == never
	if r.way.openid() == harness.AppID && r.recipient == "openid" && stranger {
		r.recipient = "unionid" // nobody has the openid of somebody who has not followed yet
	}
	if p.rnd.Float64() < 0.10 {
		r.Due = time.Duration(p.rnd.IntN(12_000)) * time.Millisecond
	}
	if p.rnd.Float64() < 0.10 {
		r.expires = 200*time.Millisecond + time.Duration(p.rnd.IntN(15_000))*time.Millisecond
	}
	r.Text = checker.Text("货 "+r.Order, fmt.Sprintf("%d.80元", person%1000), r.Order)
	return r
}

func (p *producer) standing() standing {
	rare := []standing{late, late, late, never, refuses, refuses, gone, gone} // percent
	if n := p.rnd.IntN(100); n < len(rare) {
		return rare[n]
	}
	return follows
}

// insert inserts a batch with one statement. With keys it is repeated until the server has said
// what became of it: "duplicate" says that an earlier try was carried out. Without them one try
// must do.
func (p *producer) insert(batch []*record) {
	p.records = append(p.records, batch...)
	const errDuplicate = 1062
	begin := time.Now()
	query, args := p.statement(batch)
	for {
		_, err := p.db.ExecContext(p.giveUp, query, args...)
		refusal, refused := errors.AsType[*mysql.MySQLError](err)
		if err == nil || refused && refusal.Number == errDuplicate {
			for _, r := range batch {
				r.Committed = true
			}
			p.withdrawSome(batch, begin)
			return
		}
		if refused {
			p.refusals.Store(refusal.Error(), true)
		}
		if batch[0].key == "" || !sleep(p.giveUp, 200*time.Millisecond) {
			return
		}
	}
}

func (p *producer) statement(batch []*record) (query string, args []any) {
	row := `(?, ?, ?, ?, ?, ?, ?, CURRENT_TIMESTAMP(3) + INTERVAL ? MICROSECOND,
		CURRENT_TIMESTAMP(3) + INTERVAL ? MICROSECOND, ?)`
	columns := `unionid, mini_appid, mini_openid, openid, template, data, priority, due_at,
		expires_at, dedup_key`
	if p.mini { // the schema of an older version has no route
		row, columns = `(?, ?, `+row[1:], `appid, route, `+columns
	}
	for _, r := range batch {
		var unionid, miniAppID, miniOpenID, openid, expires, key any
		switch r.recipient {
		case "unionid":
			unionid = r.Recipient.UnionID
		case "openid":
			openid = p.platform.OpenID(r.way.openid(), r.Recipient.Person)
		default:
			miniAppID = harness.MiniAppID
			miniOpenID = p.platform.OpenID(harness.MiniAppID, r.Recipient.Person)
		}
		if r.expires > 0 {
			expires = r.expires.Microseconds()
		}
		if r.key != "" {
			key = r.key
		}
		if r.way.route != "" {
			miniAppID = harness.MiniAppID
		}
		if p.mini {
			args = append(args, database.Null(r.way.appid), database.Null(r.way.route))
		}
		args = append(args, unionid, miniAppID, miniOpenID, openid, harness.Template,
			checker.Data(r.Text, r.short), r.priority, r.Due.Microseconds(), expires, key)
	}
	return `INSERT INTO send_request (` + columns + `)
		VALUES ` + row + strings.Repeat(`, `+row, len(batch)-1), args
}

// withdrawSome sets cancel on some of the requests after a while. begin is when their INSERT was
// first tried.
func (p *producer) withdrawSome(batch []*record, begin time.Time) {
	for _, r := range batch {
		if r.key == "" || p.rnd.Float64() > 0.12 {
			continue
		}
		after := time.Duration(p.rnd.IntN(1500)*p.rnd.IntN(2)) * time.Millisecond
		p.cancels.Go(func() {
			if !sleep(p.giveUp, after) {
				return
			}
			result, err := p.db.ExecContext(p.giveUp,
				`UPDATE send_request SET cancel = 1 WHERE dedup_key = ?`, r.key)
			if err != nil {
				return // it may be set or not
			}
			const margin = time.Second // begin is this machine's clock, due_at the server's
			n, err := result.RowsAffected()
			if err == nil && n == 1 && time.Since(begin)+margin < r.Due {
				r.Withdrawn = true
			}
		})
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
