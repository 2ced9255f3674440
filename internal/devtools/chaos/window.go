package main

import (
	"fmt"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/checker"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// doubted is how many messages have lost their answers when the daemon is killed.
const doubted = 13

// span is how long things take in a window round.
type span struct {
	window  time.Duration // send.resend_window
	repeats time.Duration // how long WeChat drops a second message
	answer  time.Duration // WeChat takes for each one after the restart
}

// span is real or shortened. A short round has both windows at a tenth, so their proportion stays
// 9 to 10. The time of a claim cannot be shortened: for most of a minute a claimed row may stand in
// the queue. Answers are shortened to a third only, so that a claim which begins as the window ends
// takes three times the gap between the windows. Then only the check before each POST prevents a
// second message; at the real length the gap covers the time of a claim.
func (o *options) span() span {
	if o.real {
		return span{9 * time.Minute, 10 * time.Minute, 4500 * time.Millisecond}
	}
	return span{54 * time.Second, time.Minute, 1500 * time.Millisecond}
}

func narrowWindow(c *cluster) {
	s := c.span()
	c.settings.Concurrency = 1
	c.settings.ResendWindow, c.repeats = s.window, s.repeats
	if c.real {
		c.settings.SendTimeout = 0 // the default, which is longer than an answer takes
	}
}

// restartAtTheEnd kills a daemon all of whose answers are lost, and starts it again near the end of
// the window, with a WeChat that is slow and still loses half of its answers. The first messages
// arrive at once, since then WeChat forgets them at the earliest.
func restartAtTheEnd(c *cluster) {
	c.platform.SetFault(wechatsim.Fault{
		Kind: wechatsim.FaultReset, After: true, Path: harness.PathSend,
	})
	c.insertDoubted()
	c.await("the loss of all answers", time.Minute, func() bool {
		delivered, _ := c.platform.Delivered(harness.AppID)
		return delivered == doubted && doubted == c.db.Count(
			`SELECT COUNT(*) FROM send_request WHERE uncertain_at IS NOT NULL`)
	})
	d := c.anyDaemon()
	c.kill(d, "kill after lost answers")
	s := c.span()
	offset := c.restartOffset(s)
	age := c.db.Count(`SELECT TIMESTAMPDIFF(MICROSECOND, MIN(uncertain_at), CURRENT_TIMESTAMP(3))
		FROM send_request`)
	c.Sleep(s.window + offset - time.Duration(age)*time.Microsecond)
	c.platform.ClearFaults()
	for _, fault := range []wechatsim.Fault{
		{Kind: wechatsim.FaultReset, After: true, Probability: 0.5}, {Kind: wechatsim.FaultSlow},
	} {
		fault.Path, fault.Delay = harness.PathSend, s.answer
		c.platform.SetFault(fault)
	}
	c.did(fmt.Sprintf("restart %.1f s from the window's end", offset.Seconds()))
	d.start()
	c.await("the end of all requests", healing, func() bool {
		return c.db.Count(`SELECT COUNT(*) FROM send_request WHERE status = 'pending'`) == 0
	})
}

// restartOffset is when the daemon starts again, counted from the window's end. Twenty rounds with
// consecutive seeds cover the time from where all messages can still be repeated to where none can.
// At the real length it is the moment at which people were once messaged twice.
func (c *cluster) restartOffset(s span) time.Duration {
	if c.real {
		return -10 * time.Second
	}
	const places = 20
	place := (float64(c.seed%places) + c.rnd.Float64()) / places
	return time.Duration(place*float64((doubted+1)*s.answer)) - doubted*s.answer
}

func (c *cluster) insertDoubted() {
	p := c.producers[0]
	var batch []*record
	for i, person := range c.persons[follows][:doubted] {
		r := &record{recipient: "unionid", standing: follows}
		r.Order = fmt.Sprintf("%s-%d", p.name, i)
		r.Text = checker.Text("货", "1元", r.Order)
		r.Recipient = wechatsim.Identity{Person: person, UnionID: c.platform.UnionID(person)}
		batch = append(batch, r)
	}
	p.insert(batch)
	if !batch[0].Committed {
		c.Fatalf("the requests could not be inserted")
	}
}
