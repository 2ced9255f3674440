package main

import (
	"fmt"
	"os/exec"
	"slices"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/checker"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

type request struct {
	checker.Request
	miniUser wechatsim.Identity
	inserted time.Time // when the INSERT had returned
}

func (d *demo) insertMiniUsers() {
	d.Step("Mini program: the app puts its users into mini_user")
	users := d.simulator.MiniUsers()
	d.app.InsertMiniUsers(users)
	d.Say("%s rows (appid, openid, unionid)", harness.Count(len(users)))
	// The recipients are spread evenly over the users. A stride that is no multiple of 3, because
	// every third user does not follow.
	stride := len(users) / d.requests
	if stride%3 == 0 {
		stride--
	}
	for i := range d.requests {
		user := users[i*max(1, stride)]
		truth := d.simulator.Truth(user.Person)
		if truth.UnionID != user.UnionID || truth.UnionID == "" {
			d.Fatalf("the simulator contradicts itself about person %d", user.Person)
		}
		order := fmt.Sprintf("D-%06d", i)
		d.requested = append(d.requested, request{miniUser: user, Request: checker.Request{
			Order: order, Recipient: truth, Text: text(i, order),
			Committed: true, Waits: !truth.Following,
		}})
	}
}

// text is the i-th message: Chinese, and characters that JSON, HTML and SQL like to spoil.
func text(i int, order string) map[string]string {
	goods := []string{
		"热拿铁 & 可颂", "茶<新品>第二杯半价", `"大杯"冰美式`, "O'Reilly 图书 100%", `C:\new\table`,
		"咖啡豆 250g; DROP", "生日蛋糕(8寸)¥199", "Crème brûlée", "𠮷野家牛丼", "+/=?#&amp;",
	}
	return checker.Text(goods[i%len(goods)], fmt.Sprintf("%d.%02d元", 10+i%90, i%100), order)
}

// sendRequests inserts the rows one by one, as an app in any language would, and follows them.
func (d *demo) sendRequests() {
	d.Step("Requests: the app INSERTs %s rows into send_request, some for people who do not follow",
		harness.Count(d.requests))
	begin := time.Now()
	d.insertRequests()
	d.Say("INSERT INTO send_request (mini_openid, template, data) VALUES ('%s', '%s', '{…}')",
		d.requested[0].miniUser.OpenID, harness.Template)
	d.Say("%s plain INSERTs in %.1f s, on one connection", harness.Count(d.requests), time.Since(begin).Seconds())
	counts := d.follow(func(counts map[string]int64) bool { return counts["pending"] == 0 })
	d.sending = time.Since(begin)
	d.Good("%s, %.1f s after the first INSERT", describe(counts), d.sending.Seconds())
}

func (d *demo) insertRequests() {
	byMini := d.app.Prepared(`INSERT INTO send_request (mini_openid, template, data) VALUES (?, ?, ?)`)
	byUnion := d.app.Prepared(
		`INSERT INTO send_request (unionid, template, data, dedup_key) VALUES (?, ?, ?, ?)`)
	for i := range d.requested {
		r := &d.requested[i]
		// Both forms of the data with either kind of recipient.
		data := checker.Data(r.Text, i/2%2 == 0)
		if i%4 == 3 {
			byUnion(r.Recipient.UnionID, harness.Template, data, r.Order)
		} else {
			byMini(r.miniUser.OpenID, harness.Template, data)
		}
		r.inserted = time.Now()
	}
}

func (d *demo) check() {
	d.Step("Check: every delivered message against the simulator's read-back")
	appid, template := harness.AppID, harness.TemplateID()
	if d.mini {
		appid, template = harness.MiniAppID, harness.MiniTemplateID()
	}
	d.delivered = d.simulator.MessagesOf(appid)
	reader := d.database.Reader()
	h := checker.History{
		Undisturbed: true, Requests: map[string]checker.Request{}, Messages: d.delivered,
		Rows: checker.ReadRows(reader, "send_request"), Templates: map[string]string{appid: template},
	}
	for _, r := range d.requested {
		h.Requests[r.Order] = r.Request
	}
	violations := checker.Check(h).Violations
	for _, v := range violations[:min(len(violations), 10)] {
		d.Bad("%s", v)
	}
	if len(violations) > 0 {
		d.Fatalf("%s mismatches", harness.Count(len(violations)))
	}
	// The app sees its rows by the view.
	differ := reader.Count(`
		SELECT COUNT(*)
		  FROM send_request r
		  LEFT JOIN v_send_status v ON v.id = r.id
		 WHERE NOT (v.status <=> r.status AND v.reason <=> r.reason AND
		            v.sent_openid <=> r.sent_openid AND v.msgid <=> r.msgid)`)
	if differ > 0 {
		d.Fatalf("v_send_status shows %d rows other than they are", differ)
	}
	d.Good("%s messages: right person, right account, right text; "+
		"none twice, none missing, none to anybody else", harness.Count(len(d.delivered)))
}

const newcomers = 3

// someFollow lets some of the people whose messages wait follow the account. The next sweep finds
// them and releases what waits for them, and the daemon sends it.
func (d *demo) someFollow() {
	for i := range d.requested {
		if r := &d.requested[i]; r.Waits && d.late < newcomers {
			d.simulator.Follow(r.Recipient.Person)
			r.Recipient.Following, r.Waits = true, false
			d.late++
		}
	}
	if d.late == 0 {
		return
	}
	d.Step("Waiting rows: %d of the people who did not follow do so now; unionbridge sync finds them", d.late)
	want := int64(len(d.delivered) + d.late)
	d.sync()
	d.Say("that releases what waits for them, and the daemon sends it")
	counts := d.follow(func(counts map[string]int64) bool { return counts["sent"] >= want })
	d.Good("%s", describe(counts))
	d.check()
}

func (d *demo) summarize() {
	latencies := d.latencies()
	ms := func(q float64) int64 { return harness.Quantile(latencies, q).Milliseconds() }
	all, sent := len(d.requested), len(d.delivered)
	d.Heading("Summary")
	d.Fact("first sweep", "%s followers in %.1f s: %s a second", harness.Count(d.followers),
		d.sweep.Seconds(), harness.Count(int(float64(d.followers)/d.sweep.Seconds())))
	d.Fact("requests", "%s inserted, %s delivered, %s wait for their recipient to follow",
		harness.Count(all), harness.Count(sent), harness.Count(all-sent))
	d.Fact("first INSERT to last outcome", "%.1f s: %s messages a second", d.sending.Seconds(),
		harness.Count(int(float64(len(latencies))/d.sending.Seconds())))
	d.Fact("INSERT to delivery", "p50 %d ms, p99 %d ms", ms(0.5), ms(0.99))
	d.Fact("daemon's peak memory", "%d MiB", d.daemon.PeakMemory()>>20)
	d.Fact("checked", "%s messages, all right, %.0f s after the start", harness.Count(sent), d.Elapsed().Seconds())
	if d.Terminal { // else everything is gone with the last line
		d.lookAround("v_identity LIMIT 5", "v_coverage LIMIT 5",
			"v_send_status ORDER BY id DESC LIMIT 5")
	}
}

func (d *demo) lookAround(queries ...string) {
	d.Heading("Look around")
	client, err := exec.LookPath("mariadb")
	if err != nil {
		client, err = exec.LookPath("mysql")
	}
	prefix, suffix := client+" --defaults-file="+d.Path("client.cnf")+" -e '", "'"
	if err != nil {
		d.Line("  any client of MySQL's, at %s, schema %s:", d.database.Addr, d.database.Schema)
		prefix, suffix = "  ", ";"
	}
	for _, query := range queries {
		d.Line("  %sSELECT * FROM %s%s", prefix, query, suffix)
	}
	ours := d.Path("unionbridge") + " -c " + d.instance.ConfigFile()
	reachable := slices.IndexFunc(d.requested, func(r request) bool { return r.Recipient.Following })
	unionid := d.requested[max(reachable, 0)].Recipient.UnionID
	data := checker.Data(checker.Text("热拿铁", "28元", "X-1"), true)
	d.Line("  %s lookup %s", ours, unionid)
	d.Line("  %s send --unionid %s --template %s --data '%s'", ours, unionid, harness.Template, data)
	d.Line("  curl -s http://%s/metrics | grep ^unionbridge_", d.instance.Settings.Listen)
	d.Line("  curl -s %s/_sim/stats", d.simulator.URL)
}

// latencies are the times from the INSERT to the delivery, sorted, of the rows that did not have to
// wait for their recipient.
func (d *demo) latencies() []time.Duration {
	inserted := make(map[string]time.Time, len(d.requested))
	for _, r := range d.requested {
		inserted[r.Order] = r.inserted
	}
	var latencies []time.Duration
	for _, m := range d.delivered[:len(d.delivered)-d.late] { // in the order of their msgids
		latencies = append(latencies, m.Time.Sub(inserted[checker.Order(m.Data)]))
	}
	slices.Sort(latencies)
	return latencies
}
