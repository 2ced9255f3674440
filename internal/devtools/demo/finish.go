package main

import (
	"cmp"
	"fmt"
	"os/exec"
	"slices"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/checker"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// newcomers is how many of those who did not follow begin to.
const newcomers = 3

// someFollow lets some of the people whose messages wait follow the account. The next sweep finds
// them, and the daemon, which looks for such people every 20 s, sends what waits for them.
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
	d.Say("the daemon looks for them every 20 s …")
	counts := d.follow(func(counts map[string]int64) bool { return counts["sent"] >= want })
	d.Good("%s", describe(counts))
	d.check()
}

func (d *demo) summarize() {
	latencies := d.latencies()
	ms := func(q float64) string {
		return fmt.Sprintf("%d ms", harness.Quantile(latencies, q).Milliseconds())
	}
	all, sent := len(d.requested), len(d.delivered)
	d.Heading("Summary")
	d.Fact("first sweep", "%s followers in %.1f s: %s a second", harness.Count(d.followers),
		d.sweep.Seconds(), harness.Count(int(float64(d.followers)/d.sweep.Seconds())))
	d.Fact("requests", "%s inserted, %s delivered, %s wait for their recipient to follow",
		harness.Count(all), harness.Count(sent), harness.Count(all-sent))
	d.Fact("first INSERT to last outcome", "%.1f s: %s messages a second", d.sending.Seconds(),
		harness.Count(int(float64(len(latencies))/d.sending.Seconds())))
	d.Fact("INSERT to delivery", "p50 %s, p99 %s", ms(0.5), ms(0.99))
	d.Fact("daemon's peak memory", "%d MiB", d.daemon.PeakMemory()>>20)
	d.Fact("checked", "%s messages, all right, %.0f s after the start", harness.Count(sent), d.Elapsed().Seconds())
	if d.Terminal { // else everything is gone with the last line
		d.lookAround()
	}
}

func (d *demo) lookAround() {
	d.Heading("Look around")
	if client := sqlClient(); client != "" {
		sql := client + " --defaults-file=" + d.Path("client.cnf") + " -e"
		d.Line("  %s 'SELECT * FROM v_send_status ORDER BY id DESC LIMIT 5'", sql)
		d.Line("  %s 'SELECT * FROM v_identity LIMIT 5'", sql)
	} else {
		d.Line("  any client of MySQL's, at %s, schema %s:", d.database.Addr(), d.database.Schema())
		d.Line("    SELECT * FROM v_identity LIMIT 10;")
		d.Line("    SELECT * FROM v_coverage LIMIT 10;")
		d.Line("    SELECT * FROM v_send_status ORDER BY id DESC LIMIT 10;")
	}
	ours := d.Path("unionbridge") + " -c " + d.instance.ConfigFile()
	unionid := d.reachable().UnionID
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
	slices.SortFunc(latencies, cmp.Compare)
	return latencies
}

func (d *demo) reachable() wechatsim.Identity {
	for _, r := range d.requested {
		if r.Recipient.Following {
			return r.Recipient
		}
	}
	return d.requested[0].Recipient
}

func sqlClient() string {
	for _, name := range []string{"mariadb", "mysql"} {
		if _, err := exec.LookPath(name); err == nil {
			return name
		}
	}
	return ""
}
