package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

// producer is a program that inserts requests, over a link that is bad at times too.
type producer struct {
	name   string
	db     *sql.DB
	rnd    *rand.Rand
	ledger *ledger
	people *people
	pause  time.Duration // between two INSERTs

	serial   int
	giveUp   context.Context // after its end nothing is tried again
	cancels  sync.WaitGroup
	failures sync.Map // what went wrong otherwise than by trouble on the way, by its text
}

// people are the persons of a round, by what they are to the account.
type people struct {
	platform *platform
	persons  map[standing][]int
}

// run inserts until ctx ends. What it has begun then, it finishes, until giveUp ends.
func (p *producer) run(ctx context.Context) {
	tick := time.NewTicker(p.pause)
	defer tick.Stop()
	for ctx.Err() == nil {
		p.insert(p.batch())
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	p.cancels.Wait()
}

// batch makes up one to four requests for one INSERT.
func (p *producer) batch() []*record {
	batch := make([]*record, 1+p.rnd.IntN(4)*p.rnd.IntN(2))
	keyed := p.rnd.Float64() < 0.6
	for i := range batch {
		p.serial++
		r := &record{order: fmt.Sprintf("%s-%d", p.name, p.serial), short: p.rnd.IntN(2) == 0, priority: p.rnd.IntN(3)}
		if keyed {
			r.key = "key " + r.order
		}
		r.standing = p.standing()
		r.person = p.people.persons[r.standing][p.rnd.IntN(len(p.people.persons[r.standing]))]
		r.recipient = []string{"unionid", "mini_openid", "mini_openid", "unionid", "openid"}[p.rnd.IntN(5)]
		if r.recipient == "openid" && (r.standing == late || r.standing == never) {
			r.recipient = "unionid" // nobody has the openid of somebody who has not followed yet
		}
		if p.rnd.Float64() < 0.10 {
			r.due = time.Duration(p.rnd.IntN(12_000)) * time.Millisecond
		}
		if p.rnd.Float64() < 0.10 {
			r.expires = 200*time.Millisecond + time.Duration(p.rnd.IntN(15_000))*time.Millisecond
		}
		batch[i] = r
	}
	return batch
}

func (p *producer) standing() standing {
	switch f := p.rnd.Float64(); {
	case f < 0.03:
		return late
	case f < 0.04:
		return never
	case f < 0.06:
		return refuses
	case f < 0.08:
		return gone
	}
	return follows
}

// errDuplicate is MySQL's number for a unique key that exists.
const errDuplicate = 1062

// insert inserts a batch with one statement. With keys it is repeated until the server has said what became
// of it: "duplicate" says that an earlier try was carried out. Without them one try must do.
func (p *producer) insert(batch []*record) {
	p.ledger.add(batch)
	begin := time.Now()
	query, args := p.statement(batch)
	for {
		_, err := p.db.ExecContext(p.giveUp, query, args...)
		refusal, refused := errors.AsType[*mysql.MySQLError](err)
		if err == nil || refused && refusal.Number == errDuplicate {
			p.ledger.commit(batch)
			p.withdrawSome(batch, begin)
			return
		}
		if refused {
			p.failures.Store(refusal.Error(), true)
		}
		if batch[0].key == "" || !sleep(p.giveUp, 200*time.Millisecond) {
			return
		}
	}
}

func (p *producer) statement(batch []*record) (query string, args []any) {
	const row = `(?, ?, ?, ?, ?, ?, ?, CURRENT_TIMESTAMP(3) + INTERVAL ? MICROSECOND, CURRENT_TIMESTAMP(3) + INTERVAL ? MICROSECOND, ?)`
	for _, r := range batch {
		var unionid, miniAppID, miniOpenID, openid, expires, key any
		switch r.recipient {
		case "unionid":
			unionid = p.people.platform.UnionID(r.person)
		case "openid":
			openid = p.people.platform.OpenID(stage.AppID, r.person)
		default:
			miniAppID, miniOpenID = stage.MiniAppID, p.people.platform.OpenID(stage.MiniAppID, r.person)
		}
		if r.expires > 0 {
			expires = r.expires.Microseconds()
		}
		if r.key != "" {
			key = r.key
		}
		args = append(args, unionid, miniAppID, miniOpenID, openid, stage.Template, r.data(), r.priority, r.due.Microseconds(), expires, key)
	}
	return `INSERT INTO send_request (unionid, mini_appid, mini_openid, openid, template, data, priority, due_at, expires_at, dedup_key)
		VALUES ` + row + strings.Repeat(`, `+row, len(batch)-1), args
}

// withdrawSome sets cancel on some of the requests after a while. begin is when their INSERT was first tried.
func (p *producer) withdrawSome(batch []*record, begin time.Time) {
	for _, r := range batch {
		if r.key == "" || p.rnd.Float64() > 0.12 {
			continue
		}
		after := time.Duration(p.rnd.IntN(1500)) * time.Millisecond * time.Duration(p.rnd.IntN(2))
		p.cancels.Go(func() {
			if !sleep(p.giveUp, after) {
				return
			}
			result, err := p.db.ExecContext(p.giveUp, `UPDATE send_request SET cancel = 1 WHERE dedup_key = ?`, r.key)
			if err != nil {
				return // it may be set or not
			}
			const margin = time.Second // begin is this machine's clock, due_at the server's
			if n, err := result.RowsAffected(); err == nil && n == 1 && time.Since(begin)+margin < r.due {
				p.ledger.withdraw(r)
			}
		})
	}
}

// newPeople gives everybody his part. Those who follow from the start are the persons below followers.
func newPeople(p *platform, followers int) *people {
	split := &people{platform: p, persons: map[standing][]int{}}
	for person := range followers {
		switch person % 20 {
		case 7:
			split.persons[refuses] = append(split.persons[refuses], person)
		case 13:
			split.persons[gone] = append(split.persons[gone], person)
		default:
			split.persons[follows] = append(split.persons[follows], person)
		}
	}
	const others = 12
	for i := range others {
		split.persons[late] = append(split.persons[late], followers+i)
		split.persons[never] = append(split.persons[never], followers+others+i)
	}
	return split
}
