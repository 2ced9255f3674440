package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/checker"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// miniDemo is the demo of a mini program without any official account.
type miniDemo struct {
	*demo
	byPart map[part][]int // which requests are to people of a part
	taps   []time.Duration
}

// part is what the recipient of a request has done in the mini program, and who knows it.
type part int

// Of sixteen people eight have accepted and WeChat pushes it, and so on.
const (
	pushed   part = iota // accepted, and WeChat pushes it
	reported             // accepted, the push is lost, and the app reports it
	both                 // accepted, and both say so: one message, not two
	mistaken             // the app reports an acceptance that WeChat knows nothing of
	later                // has not accepted yet
)

const parts = 16

func partOf(i int) part {
	return [parts]part{pushed, later, pushed, reported, pushed, mistaken, pushed, both, pushed,
		reported, pushed, later, pushed, reported, pushed, both}[i%parts]
}

func (d *miniDemo) run() {
	d.Title("unionbridge demo: a mini program alone, and what its users allow it to send")
	d.build()
	d.startSimulator(harness.SimulatorConfig{NoOfficial: true})
	d.Say("%s: no official account, a mini program with %s users", d.simulator.URL,
		harness.Count(d.miniUsers))
	d.migrate(harness.Settings{
		Callback: d.FreeAddr(), Mini: &harness.Mini{Alone: true, Grants: "both"},
	})
	d.insertUsers()
	d.startDaemon()
	d.receivePushes()
	d.accept()
	d.send()
	d.acceptLater()
	d.loseAnAnswer()
	d.check()
	d.checkGrants()
	d.summarize()
	if d.Terminal {
		d.stayUp()
	}
}

func (d *miniDemo) insertUsers() {
	d.Step("Mini program: the app puts its users into mini_user")
	users := d.simulator.MiniUsers()
	d.app.InsertMiniUsers(users)
	d.Say("%s rows (appid, openid, unionid)", harness.Count(len(users)))
	d.byPart = make(map[part][]int)
	for i := range d.requests {
		user := users[i*(len(users)/d.requests)]
		order := fmt.Sprintf("M-%06d", i)
		d.requested = append(d.requested, request{miniUser: user, Request: checker.Request{
			Order: order, Recipient: user, Text: text(i, order), Committed: true,
			Waits: partOf(i) == later || partOf(i) == mistaken,
		}})
		d.byPart[partOf(i)] = append(d.byPart[partOf(i)], i)
	}
}

// receivePushes has WeChat push what users do, encrypted, in JSON of every shape, some of it twice
// and in another order.
func (d *miniDemo) receivePushes() {
	d.simulator.SetCallbackOf(harness.MiniAppID, &wechatsim.Callback{
		URL:   "http://" + d.instance.Settings.Callback + "/wechat/" + harness.MiniAppID,
		Token: harness.CallbackToken, AESKey: harness.CallbackKey, Secure: true,
		Format: wechatsim.FormatMixed, Duplicate: 0.1, Jitter: 100 * time.Millisecond,
		Subscribe: wechatsim.SubscribeEvents{SentSuccess: true},
	})
	d.Say("WeChat pushes what users accept to http://%s/wechat/%s, one in ten twice",
		d.instance.Settings.Callback, harness.MiniAppID)
}

func (d *miniDemo) accept() {
	d.Step("Acceptances: people tap “allow” in wx.requestSubscribeMessage")
	report := d.app.Prepared(`
		INSERT INTO subscription_report (appid, openid, template_id, result, report_key)
		VALUES (?, ?, ?, 'accept', ?)`)
	for i, r := range d.requested {
		person := r.miniUser.Person
		switch partOf(i) {
		case pushed, both:
			d.simulator.Tap(person)
		case reported:
			d.simulator.Grant(person, 1)
		}
		if p := partOf(i); p == reported || p == both || p == mistaken {
			report(harness.MiniAppID, r.miniUser.OpenID, harness.MiniTemplateID(), r.Order)
		}
	}
	count := func(p part) string { return harness.Count(len(d.byPart[p])) }
	d.Say("%s pushed by WeChat, %s reported by the app, %s both, which count once", count(pushed),
		count(reported), count(both))
	d.Say("%s reported by mistake; %s people have not accepted yet", count(mistaken), count(later))
}

func (d *miniDemo) send() {
	d.Step("Requests: the app INSERTs %s rows into send_request", harness.Count(d.requests))
	begin := time.Now()
	for _, column := range []string{"openid", "mini_openid", "unionid"} {
		d.insertBy(column)
	}
	d.Say("INSERT INTO send_request (openid, template, data) VALUES ('%s', '%s', '{…}')",
		d.requested[0].miniUser.OpenID, harness.Template)
	want := int64(len(d.byPart[pushed]) + len(d.byPart[reported]) + len(d.byPart[both]))
	counts := d.follow(func(counts map[string]int64) bool {
		return counts["pending"] == 0 && counts["sent"] >= want &&
			d.refused() == int64(len(d.byPart[mistaken]))
	})
	d.sending = time.Since(begin)
	d.Good("%s, %.1f s after the first INSERT", describe(counts), d.sending.Seconds())
	d.Say("reason no_grant; WeChat refused %s of them with 43101, where the app had been mistaken",
		harness.Count(d.refused()))
}

func (d *miniDemo) insertBy(column string) {
	insert := d.app.Prepared(
		`INSERT INTO send_request (` + column + `, template, data, dedup_key) VALUES (?, ?, ?, ?)`)
	columns := []string{"openid", "mini_openid", "unionid"}
	for i := range d.requested {
		r := &d.requested[i]
		if columns[i%len(columns)] != column {
			continue
		}
		id := r.miniUser.OpenID
		if column == "unionid" {
			id = r.miniUser.UnionID
		}
		insert(id, harness.Template, checker.Data(r.Text, i/2%2 == 0), r.Order)
	}
}

// refused is how many rows wait because WeChat said that the person allows nothing.
func (d *miniDemo) refused() int64 {
	return d.app.Count(`SELECT COUNT(*) FROM v_send_status
		 WHERE status = 'waiting' AND reason = 'no_grant' AND errcode = 43101`)
}

// acceptLater lets some of the people accept whose messages wait.
func (d *miniDemo) acceptLater() {
	const newcomers = 20
	some := slices.Concat(d.byPart[later][:len(d.byPart[later])/2], d.byPart[mistaken][:1])
	some = some[:min(len(some), newcomers)]
	d.Step("Waiting rows: %d of the people accept now", len(some))
	tapped := make(map[int]time.Time)
	for _, i := range some {
		tapped[d.requested[i].miniUser.Person] = time.Now()
		d.simulator.Tap(d.requested[i].miniUser.Person)
		d.requested[i].Waits = false
	}
	d.awaitSent(len(some))
	for _, m := range d.simulator.MessagesOf(harness.MiniAppID) {
		if at, ok := tapped[m.Person]; ok {
			d.taps = append(d.taps, m.Time.Sub(at))
		}
	}
	slices.Sort(d.taps)
	d.Good("sent %d ms after the tap at the latest", harness.Quantile(d.taps, 1).Milliseconds())
}

// awaitSent waits until so many more rows are sent than before.
func (d *miniDemo) awaitSent(more int) {
	d.late += more
	want := int64(d.requests - len(d.byPart[later]) - len(d.byPart[mistaken]) + d.late)
	d.follow(func(counts map[string]int64) bool { return counts["sent"] >= want })
}

// loseAnAnswer shows a message whose outcome nobody knows: WeChat drops no second one of its kind,
// so it is not repeated, and WeChat's own event says what became of it.
func (d *miniDemo) loseAnAnswer() {
	d.Step("A lost answer: WeChat takes a message and the connection breaks")
	d.simulator.SetFault(wechatsim.Fault{
		Kind: wechatsim.FaultReset, Path: harness.PathSubscribe, After: true, Next: 1,
	})
	r := &d.requested[d.byPart[later][len(d.byPart[later])-1]]
	d.simulator.Tap(r.miniUser.Person)
	r.Waits = false
	d.awaitSent(1)
	d.Good("subscribe_msg_sent_event has settled it: one message, and it is not repeated")
}

// checkGrants holds the ledger against what WeChat knows.
func (d *miniDemo) checkGrants() {
	d.Step("Check: what people still allow against the simulator's read-back")
	wrong := checker.CompareGrants(d.database.Reader(), harness.MiniAppID, d.simulator.Grants())
	for _, text := range wrong[:min(len(wrong), 10)] {
		d.Bad("%s", text)
	}
	if len(wrong) > 0 {
		d.Fatalf("%s grants differ", harness.Count(len(wrong)))
	}
	said, err := d.Output(d.instance.Command("grants", "check"))
	d.Checkf(err, "unionbridge grants check")
	d.Good("unionbridge grants check: %s", strings.TrimSpace(said))
}

func (d *miniDemo) summarize() {
	all, sent := len(d.requested), len(d.delivered)
	d.Heading("Summary")
	d.Fact("requests", "%s inserted, %s delivered, %s wait until their recipient accepts",
		harness.Count(all), harness.Count(sent), harness.Count(all-sent))
	d.Fact("first INSERT to last outcome", "%.1f s", d.sending.Seconds())
	d.Fact("tap to delivery", "p50 %d ms, at most %d ms",
		harness.Quantile(d.taps, 0.5).Milliseconds(), harness.Quantile(d.taps, 1).Milliseconds())
	d.Fact("daemon's peak memory", "%d MiB", d.daemon.PeakMemory()>>20)
	d.Fact("checked", "%s messages, all right, %.0f s after the start", harness.Count(sent),
		d.Elapsed().Seconds())
	if d.Terminal { // else everything is gone with the last line
		d.lookAround("mini_user LIMIT 5", "subscription_grant LIMIT 5", "grant_event LIMIT 5",
			"v_send_status ORDER BY id DESC LIMIT 5")
	}
}
