package main

import (
	"cmp"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// newcomers is how many of those who did not follow begin to.
const newcomers = 3

// someFollow lets some of the people whose messages wait follow the account. The next sweep finds them,
// and the daemon, which looks for such people every 20 s, sends what waits for them.
func (p *play) someFollow(ctx context.Context) error {
	var names []string
	for i := range p.wants {
		w := &p.wants[i]
		if w.Person.Following || len(names) == newcomers {
			continue
		}
		if err := p.simulator.Follow(ctx, w.Person.Person); err != nil {
			return err
		}
		w.Person.Following = true
		names = append(names, w.Order)
	}
	if len(names) == 0 {
		return nil
	}
	p.late = len(names)
	p.screen.Step("Waiting rows: %d of the people who did not follow do so now; unionbridge sync finds them", len(names))
	before := int64(len(p.delivered))
	if err := p.sync(ctx); err != nil {
		return err
	}
	p.screen.Say("the daemon looks for them every 20 s …")
	counts, err := p.follow(ctx, func(counts map[string]int64) bool { return counts["sent"] >= before+int64(len(names)) })
	if err != nil {
		return err
	}
	p.screen.Good("%s", describe(counts))
	return p.check(ctx)
}

// summarise prints the figures, and the commands to look around if anything stays up.
func (p *play) summarise() {
	latencies := p.latencies()
	s := p.screen
	s.Heading("Summary")
	s.Fact("first sweep", "%s followers in %.1f s: %s a second", count(p.followers), p.sweep.Seconds(),
		count(int(float64(p.followers)/p.sweep.Seconds())))
	s.Fact("requests", "%s inserted, %s delivered, %s wait for their recipient to follow",
		count(len(p.wants)), count(len(p.delivered)), count(len(p.wants)-len(p.delivered)))
	s.Fact("first INSERT to last outcome", "%.1f s: %s messages a second", p.sending.Seconds(),
		count(int(float64(len(latencies))/p.sending.Seconds())))
	s.Fact("INSERT to delivery", "p50 %s, p99 %s", millis(stage.Quantile(latencies, 0.5)), millis(stage.Quantile(latencies, 0.99)))
	s.Fact("daemon's peak memory", "%d MiB", p.daemon.PeakMemory()>>20)
	s.Fact("checked", "%s messages, all right, %.0f s after the start", count(len(p.delivered)), s.Elapsed().Seconds())

	if s.Terminal { // else everything is gone with the last line
		p.lookAround()
	}
}

// lookAround prints commands that show what the demo has made, while it stays up.
func (p *play) lookAround() {
	s := p.screen
	s.Heading("Look around")
	if client := sqlClient(); client != "" {
		s.Line("  %s --defaults-file=%s -e 'SELECT * FROM v_send_status ORDER BY id DESC LIMIT 5'", client, p.stage.Path("client.cnf"))
		s.Line("  %s --defaults-file=%s -e 'SELECT * FROM v_identity LIMIT 5'", client, p.stage.Path("client.cnf"))
	} else {
		s.Line("  any client of MySQL's, at %s, schema %s:", p.database.Addr(), p.database.Schema())
		s.Line("    SELECT * FROM v_identity LIMIT 10;")
		s.Line("    SELECT * FROM v_coverage LIMIT 10;")
		s.Line("    SELECT * FROM v_send_status ORDER BY id DESC LIMIT 10;")
	}
	ours := p.stage.Path("unionbridge") + " -c " + p.stage.Path("config.yaml")
	s.Line("  %s lookup %s", ours, p.reachable().UnionID)
	s.Line(`  %s send --unionid %s --template %s --data '{"thing1":"热拿铁","time2":"15:04","amount3":"28元","character_string4":"X-1"}'`,
		ours, p.reachable().UnionID, stage.Template)
	s.Line("  curl -s http://%s/metrics | grep ^unionbridge_", p.listen)
	s.Line("  curl -s %s/_sim/stats", p.simulator.URL)
}

// latencies are the times from the INSERT to the delivery, sorted, of the rows that did not have to
// wait for their recipient.
func (p *play) latencies() []time.Duration {
	inserted := make(map[string]time.Time, len(p.wants))
	for _, w := range p.wants {
		inserted[w.Order] = w.Inserted
	}
	var latencies []time.Duration
	for _, m := range p.delivered[:len(p.delivered)-p.late] { // in the order of their msgids
		latencies = append(latencies, m.Time.Sub(inserted[values(m)["character_string4"]]))
	}
	slices.SortFunc(latencies, cmp.Compare)
	return latencies
}

func (p *play) reachable() wechatsim.Identity {
	for _, w := range p.wants {
		if w.Person.Following {
			return w.Person
		}
	}
	return p.wants[0].Person
}

func millis(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }

// sqlClient is the database's own client, if it is installed.
func sqlClient() string {
	for _, name := range []string{"mariadb", "mysql"} {
		if _, err := exec.LookPath(name); err == nil {
			return name
		}
	}
	return ""
}

// stayUp leaves everything running until Ctrl-C.
func (p *play) stayUp(ctx context.Context) error {
	p.screen.Heading("Everything stays up until Ctrl-C, then it is removed.")
	select {
	case <-ctx.Done():
		p.screen.Line("\nending the daemon, the simulator and the database …")
		return nil
	case <-p.daemon.Done():
		return fmt.Errorf("the daemon ended by itself: %s\n%s", p.daemon.Ended(), p.stage.LogTail(stage.DaemonLog))
	case <-p.simulator.Done():
		return fmt.Errorf("the simulator ended by itself: %s", p.simulator.Ended())
	}
}
