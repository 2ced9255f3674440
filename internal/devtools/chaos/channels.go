package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/checker"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/devtools/link"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// mini is the mini program's part in a round: its people, their acceptances, and WeChat's pushes.
type mini struct {
	*cluster
	counts    channels
	deadlocks int64 // of the server, at the beginning
	people    *people
	counted   map[int64]bool // the rows that a kill left in doubt

	mu  sync.Mutex // of rnd
	rnd *rand.Rand // of the pushes
}

func bothChannels(c *cluster) {
	m := &mini{cluster: c, counted: map[int64]bool{}, rnd: rand.New(rand.NewPCG(c.seed, 99))}
	m.counts.Grants = []string{"events", "both", "reports"}[c.rnd.IntN(3)]
	m.counts.SentEvents = c.rnd.IntN(3) > 0
	// Where a repetition gets an msgid of its own, the first one's receipt is nobody's, and another row
	// in doubt takes it for its own: nobody could tell it from a lost one.
	if c.repeat == wechatsim.RepeatNewID {
		c.repeat = wechatsim.RepeatSameID
	}
	c.mini, c.result.Channels = m, &m.counts
	c.settings.Mini = &harness.Mini{Grants: m.counts.Grants}
	c.settings.WaitForGrant = waitForFollower
}

func (m *mini) start(dsn string) {
	m.deadlocks = m.countDeadlocks()
	m.people = newPeople(m.cluster, m.counts.Grants)
	m.people.start(dsn)
}

// receivePushes has WeChat push both accounts' events to a proxy in front of the daemons: some
// twice, in another order, in every shape.
func (m *mini) receivePushes() {
	front := m.Serve(m.front())
	push := wechatsim.Callback{
		Token: harness.CallbackToken, AESKey: harness.CallbackKey, Secure: true,
		Jitter: 700 * time.Millisecond, Attempts: 10_000, RetryWait: 500 * time.Millisecond, Duplicate: 0.1,
		Subscribe: wechatsim.SubscribeEvents{SentSuccess: m.counts.SentEvents},
	}
	for _, appid := range []string{harness.AppID, harness.MiniAppID} {
		own := push
		own.URL = front + "/wechat/" + appid
		if appid == harness.MiniAppID && m.cluster.rnd.IntN(3) > 0 {
			own.Format = wechatsim.FormatMixed
		}
		m.platform.SetCallback(appid, &own)
	}
}

// busy reports whether pushes or reports are still to be counted.
func (m *mini) busy() bool {
	if m.platform.PushesUnderWay() > 0 || m.people.reporting() {
		return true
	}
	var n int
	err := m.db.GetContext(m.Context(), &n, `SELECT COUNT(*) FROM subscription_report`)
	return err != nil || n > 0
}

// killChannels kills the daemons, most often the one that sends subscribe messages, while answers are
// lost or links are bad.
func killChannels(c *cluster) {
	for range c.kills {
		c.platform.SetLatency(c.between(0, 200*time.Millisecond))
		var bad []*link.Link
		switch c.rnd.IntN(6) {
		case 0:
			bad = c.poison()
		case 1, 2:
			c.setFaults()
		}
		c.Sleep(c.between(100*time.Millisecond, 1500*time.Millisecond))
		d := c.anyDaemon()
		if sends := c.leaderOf(harness.MiniAppID); sends != nil && c.rnd.IntN(3) > 0 {
			d = sends
		}
		c.mini.kill(d, bad)
	}
}

// kill kills a daemon, counts what that leaves in doubt, repairs what was broken, and starts the daemon
// again. In one of ten kills its leases are left to run out, and the other daemon must take over.
func (m *mini) kill(d *instance, bad []*link.Link) {
	subscribes, sends := m.leaderOf(harness.MiniAppID) == d, m.leader() == d
	pid := m.cluster.kill(d, "kill")
	if subscribes {
		m.count(time.Now(), len(bad) > 0)
	}
	m.platform.ClearFaults()
	for _, l := range bad {
		m.Check(l.Heal())
	}
	if sends && m.cluster.rnd.IntN(10) == 0 {
		m.awaitTakeover(d, "died")
	} else {
		m.endLeases(pid)
	}
	d.start()
}

// count counts what a kill has left. Until the account is taken over nobody decides about it.
func (m *mini) count(at time.Time, bad bool) {
	var rows []struct {
		ID   int64  `db:"id"`
		Data []byte `db:"data"`
	}
	m.db.FetchAll(&rows, `
		SELECT r.id, r.data
		  FROM send_attempt a
		  JOIN send_request r ON r.id = a.request_id
		 WHERE a.appid = ? AND r.status = 'pending'`, harness.MiniAppID)
	claimed := m.db.Count(`
		SELECT COUNT(*)
		  FROM send_request
		 WHERE appid = ? AND status = 'pending' AND lease IS NOT NULL`, harness.MiniAppID)
	orders := map[string]bool{}
	for _, r := range rows {
		if !m.counted[r.ID] { // nobody has had the time yet to decide about those of an earlier kill
			orders[checker.OrderOf(r.Data)] = true
		}
		m.counted[r.ID] = true
	}
	now := left{Attempts: len(orders)}
	now.Flying, now.Answered = m.platform.subscribing(orders, at)
	c := &m.counts
	c.Kills++
	c.Left += now.Attempts
	c.Claimed = max(c.Claimed, int(claimed))
	worst := &c.Worst
	if bad {
		worst = &c.Bad
	}
	if now.Attempts > worst.Attempts {
		*worst = now
	}
	// One for each sender under way, and one whose outcome is being settled: sender/attempt.Open.
	if most := 2 * m.settings.Concurrency; now.Attempts > most {
		m.wrong = append(m.wrong, fmt.Sprintf("a kill left %d attempts in doubt, %d messages can be "+
			"under way or being settled", now.Attempts, most))
	}
}

// awaitResolved waits for what the pushed sent events say of messages in doubt. Some stay unknown:
// those that never arrived, and those of which an event could be of several.
func awaitResolved(c *cluster) { c.mini.awaitResolved() }

func (m *mini) awaitResolved() {
	if !m.counts.SentEvents {
		return
	}
	last, since := m.unresolved(), time.Now()
	for last > 0 && time.Since(since) < 30*time.Second {
		m.Sleep(time.Second)
		if now := m.unresolved(); now < last {
			last, since = now, time.Now()
		}
	}
}

// unresolved counts the unknown rows whose subscribe message has arrived.
func (m *mini) unresolved() (n int) {
	arrived := map[string]bool{}
	for _, message := range m.platform.Messages(harness.MiniAppID) {
		arrived[checker.Order(message.Data)] = true
	}
	for _, r := range checker.ReadRows(m.db, "send_request") {
		if r.Status == "unknown" && r.AppID == harness.MiniAppID && arrived[r.Order] {
			n++
		}
	}
	return n
}

func (m *mini) addHistory(h *checker.History) {
	h.Templates = map[string]string{
		harness.AppID: harness.TemplateID(), harness.MiniAppID: harness.MiniTemplateID(),
	}
	_, givenUp := m.platform.Pushes()
	h.AllReceipts = givenUp == 0 && m.counts.SentEvents
	m.db.FetchAll(&h.Receipts, `SELECT msgid, openid FROM send_receipt`)
}

// check holds the ledger against what WeChat knows, and counts.
func (m *mini) check() []string {
	c := &m.counts
	c.Moved = int(m.db.Count(`SELECT COUNT(*) FROM send_request WHERE fallback_from IS NOT NULL`))
	c.Unknown = int(m.db.Count(`
		SELECT COUNT(*) FROM send_request WHERE status = 'unknown' AND appid = ?`, harness.MiniAppID))
	c.Unresolved = m.unresolved()
	c.Subscribed = len(m.platform.Messages(harness.MiniAppID))
	c.Deadlocks = int(m.countDeadlocks() - m.deadlocks)
	c.Accepts, c.SwitchOffs = m.people.accepts, m.people.switchOffs
	wrong := checker.CompareGrants(m.db, harness.MiniAppID, m.platform.Grants(harness.MiniAppID))
	if _, err := m.Output(m.daemons[0].Command("grants", "check")); err != nil {
		wrong = append(wrong, fmt.Sprintf("grants check: %v", err))
	}
	if _, givenUp := m.platform.Pushes(); givenUp > 0 || m.people.unstored > 0 {
		wrong = append(wrong, fmt.Sprintf("%d pushes were never taken, and %d reports not stored",
			givenUp, m.people.unstored))
	}
	return append(wrong, m.unretried()...)
}

// unretried names deadlocks that a daemon has reported: those that it retries it does not.
func (m *mini) unretried() (wrong []string) {
	for _, d := range m.daemons {
		text, err := os.ReadFile(m.Path(d.Name + ".log"))
		m.Check(err)
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, "Error 1213") {
				wrong = append(wrong, "a deadlock was not retried: "+strings.TrimSpace(line))
			}
		}
	}
	return wrong
}

// countDeadlocks reads the server's counter, which MariaDB has.
func (m *mini) countDeadlocks() (n int64) {
	var name string
	row := m.db.QueryRowContext(m.Context(), `SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'`)
	_ = row.Scan(&name, &n) // 0 where there is none
	return n
}

// messages are those of all accounts, in the order of their msgids.
func (c *cluster) messages() []wechatsim.Message {
	messages := c.platform.Messages(harness.AppID)
	if c.mini == nil {
		return messages
	}
	messages = append(messages, c.platform.Messages(harness.MiniAppID)...)
	slices.SortFunc(messages, func(a, b wechatsim.Message) int { return a.Time.Compare(b.Time) })
	return messages
}
