package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/internal/database/privatedb"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/devtools/link"
)

// lostPairs of daemons lose their leaders at the same time: nearly all of a takeover is waiting.
// lostPeople follow the account and use the mini program.
const (
	lostPairs  = 10
	lostPeople = 1000
)

// lost kills the instance that sends right after it has renewed its lease, which lasts longest then.
// The answer to the UPDATE by which the other one takes over is lost: its connection ends, or stays
// silent, by turns. Two daemons make a pair, with a schema of their own.
func (b *bench) lost() {
	b.users = b.simulator.MiniUsers()
	pairs := min(lostPairs, b.kills)
	b.Step("takeover, its answer lost: %d kills -9, %d pairs of daemons at once", b.kills, pairs)
	var mu sync.Mutex
	var took []float64
	group := b.Group(pairs)
	for n := range pairs {
		group.Go(func(context.Context) {
			p := b.newPair(n)
			for kill := n; kill < b.kills; kill += pairs {
				seconds := p.takeOver(kill).Seconds()
				mu.Lock()
				took = append(took, seconds)
				mu.Unlock()
				b.Say("kill %d: %.1f s", kill+1, seconds)
			}
			b.Check(p.leader.process.Stop())
		})
	}
	group.Wait()
	late, worst := 0, 0.0
	for _, seconds := range took {
		worst = max(worst, seconds)
		if seconds > promisedTakeover.Seconds() {
			late++
		}
	}
	b.record("lost_kills", float64(len(took)))
	b.record("lost_late", float64(late))
	b.record("lost_worst", worst)
	b.record("lost_median", median(took))
}

// promisedTakeover is what docs/reliability.md promises.
const promisedTakeover = 15 * time.Second

// pair is two daemons on one schema. Each reaches it through a thief.
type pair struct {
	*bench
	db              harness.DB
	leader, standby *member
}

type member struct {
	*harness.Instance
	thief   *link.Thief
	process *harness.Process
}

func (b *bench) newPair(n int) *pair {
	database := b.OpenDatabase(b.host.DSN, privatedb.Config{})
	p := &pair{bench: b, db: database.Client()}
	settings := b.instance.Settings
	settings.Rate, settings.DSN = defaultRate, database.DSN
	open := func(name string) *member {
		thief, through, err := link.OpenThief(database.DSN)
		b.Check(err)
		b.Cleanup(thief.Close)
		settings := settings
		settings.DSN = through
		return &member{
			Instance: b.NewInstance(b.binary, fmt.Sprintf("pair-%d-%s", n, name), settings),
			thief:    thief,
		}
	}
	p.leader, p.standby = open("one"), open("two")
	p.leader.Run("migrate", "up")
	p.db.InsertMiniUsers(b.users)
	p.leader.Run("sync")
	p.leader.process = p.leader.Start()
	p.send(0)
	return p
}

// takeOver kills the leader and returns the time until a row that was inserted then has been sent.
func (p *pair) takeOver(kill int) time.Duration {
	p.standby.process = p.standby.Start()
	p.Sleep(2 * time.Second) // until it stands by
	before := p.awaitRenewal()
	p.standby.thief.Steal(kill%2 == 0,
		"UPDATE lease", "SET holder = '", "name = 'send:"+harness.AppID+"'")
	p.leader.process.Kill()
	killed := time.Now()
	p.send(kill + 1)
	took := time.Since(killed)
	if !p.standby.thief.Stole() {
		p.Fatalf("kill %d: no answer was lost\n%s", kill+1, p.standby.LogTail())
	}
	// One for the UPDATE whose answer was lost, one for the try that found it.
	if after := p.lease(); after.Epoch < before.Epoch+2 {
		p.Fatalf("kill %d: the lease's epoch is %d after %d: the UPDATE was not carried out",
			kill+1, after.Epoch, before.Epoch)
	}
	p.leader, p.standby = p.standby, p.leader
	return took
}

type leaseState struct {
	Epoch   int64  `db:"epoch"`
	Expires string `db:"expires_at"`
}

func (p *pair) lease() (state leaseState) {
	p.db.Fetch(&state, `SELECT epoch, expires_at FROM lease WHERE name = ?`, "send:"+harness.AppID)
	return state
}

func (p *pair) awaitRenewal() (renewed leaseState) {
	before := p.lease()
	p.Await(p.wait(p.leader, "a renewal"), func() bool {
		renewed = p.lease()
		return renewed != before
	})
	return renewed
}

// send inserts a row and waits until it has been sent.
func (p *pair) send(i int) {
	user := p.users[i%len(p.users)]
	id, err := p.db.Do(insertQuery, user.OpenID, harness.Template, message("K", i)).LastInsertId()
	p.Check(err)
	sender := p.leader
	if p.standby.process != nil {
		sender = p.standby
	}
	p.Await(p.wait(sender, "a row to be sent"), func() bool {
		return p.db.Count(`SELECT COUNT(*) FROM send_request WHERE id = ? AND status = 'sent'`, id) == 1
	})
}

func (p *pair) wait(m *member, what string) harness.Wait {
	return harness.Wait{
		For: what, Every: 50 * time.Millisecond, Most: time.Minute,
		Process: m.process, Log: m.LogTail,
	}
}
