package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// apart is how far a person's switching off is from their acceptances: nearer ones WeChat's clock and
// the app's cannot tell apart, and then the ledger counts the higher number.
const apart = 9 * time.Second

// people accept messages of the mini program, and switch them off. One goroutine plays them.
type people struct {
	*cluster
	rnd                 *rand.Rand
	grants              string
	accepts, switchOffs int
	serial              int
	tapped, off         map[int]time.Time // by person
	reports             chan report
	open                atomic.Int64 // reports that are not inserted yet
	unstored            int          // reports that never were
}

// report is what the app INSERTs after wx.requestSubscribeMessage.
type report struct {
	person int
	key    string
	at     time.Time
}

func newPeople(c *cluster, grants string) *people {
	return &people{cluster: c, rnd: rand.New(rand.NewPCG(c.seed, 7)), grants: grants,
		tapped: map[int]time.Time{}, off: map[int]time.Time{}, reports: make(chan report, 100_000)}
}

// start plays the people while producers work, and their reports until all are stored.
func (p *people) start(dsn string) {
	var everybody []int
	for _, persons := range p.persons {
		everybody = append(everybody, persons...)
	}
	work, tries := p.work, p.producers[0].giveUp
	p.producing.Go(func() {
		defer close(p.reports)
		for sleep(work, time.Duration(p.rnd.IntN(int(30*time.Millisecond)))) {
			p.act(everybody[p.rnd.IntN(len(everybody))])
		}
	})
	db := p.OpenReader(dsn)
	p.producing.Go(func() {
		for r := range p.reports {
			p.insert(tries, db, r)
		}
	})
}

// act lets a person tap, and one of ten switch off what they allow. Two acceptances of a person within
// one second WeChat's events cannot tell apart.
func (p *people) act(person int) {
	now := time.Now()
	last := p.tapped[person]
	if p.off[person].After(last) {
		last = p.off[person]
	}
	switch {
	case now.Sub(last) < 2*time.Second, person%10 == 0 && now.Sub(last) < apart:
	case person%10 == 0 && p.rnd.IntN(2) == 0:
		p.platform.SwitchOff(harness.MiniAppID, person, harness.MiniTemplateID())
		p.off[person] = now
		p.switchOffs++
		p.platform.SwitchOn(harness.MiniAppID, person, harness.MiniTemplateID())
	default:
		p.tap(person, now)
	}
}

// tap accepts. The app reports each tap where reports count. Of some WeChat pushes nothing where only
// those count; with both, the count may err after a lost push.
func (p *people) tap(person int, now time.Time) {
	p.accepts++
	p.tapped[person] = now
	if p.grants == "reports" && p.rnd.IntN(5) == 0 {
		p.platform.Grant(harness.MiniAppID, person, harness.MiniTemplateID(), 1)
	} else {
		_, err := p.platform.Subscribe(harness.MiniAppID, person, wechatsim.Tap{
			Templates: []string{harness.MiniTemplateID()},
		})
		p.Check(err)
	}
	if p.grants != "events" {
		p.serial++
		p.open.Add(1)
		p.reports <- report{person, fmt.Sprintf("tap-%d", p.serial), now}
	}
}

// insert inserts a report until the server has said that it is stored. Apps repeat some.
func (p *people) insert(ctx context.Context, db harness.DB, r report) {
	defer p.open.Add(-1)
	const query = `
		INSERT IGNORE INTO subscription_report (appid, openid, template_id, result, report_key,
		                                        accepted_at)
		VALUES (?, ?, ?, 'accept', ?, ?)`
	openid := p.platform.OpenID(harness.MiniAppID, r.person)
	for left := 1 + r.at.UnixNano()%10/9; left > 0; left-- {
		for {
			_, err := db.ExecContext(ctx, query, harness.MiniAppID, openid, harness.MiniTemplateID(),
				r.key, r.at.UTC())
			if err == nil {
				break
			}
			if !sleep(ctx, 100*time.Millisecond) {
				p.unstored++
				return
			}
		}
	}
}

func (p *people) reporting() bool { return p.open.Load() > 0 }

// front is the proxy before the daemons: it picks one, and sometimes says that a push was not taken
// although it was, so that it comes again much later.
func (m *mini) front() http.Handler {
	client := &http.Client{Timeout: 4 * time.Second}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		d := m.daemons[m.rnd.IntN(len(m.daemons))]
		forget := m.rnd.IntN(20) == 0
		m.mu.Unlock()
		request, err := http.NewRequestWithContext(r.Context(), r.Method,
			"http://"+d.Settings.Callback+r.URL.RequestURI(), r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		request.Header = r.Header
		response, err := client.Do(request)
		if err != nil { // it was killed
			http.Error(w, "no daemon", http.StatusBadGateway)
			return
		}
		defer func() { _ = response.Body.Close() }()
		if forget && response.StatusCode == http.StatusOK {
			m.mu.Lock()
			m.counts.Repeated++
			m.mu.Unlock()
			http.Error(w, "the answer was lost", http.StatusBadGateway)
			return
		}
		w.WriteHeader(response.StatusCode)
		_, _ = io.Copy(w, response.Body) // the pusher has its own patience
	})
}
