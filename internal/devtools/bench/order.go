package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// defaultPace is the configuration's default.
func defaultPace() pace { return pace{200, 64} }

const urgentRows = 100

// urgency is one speed at which a campaign is sent.
type urgency struct {
	name, kind, what string
	pace             pace
}

// measureUrgent inserts urgent rows while a campaign is being sent, as fast as the machine can and then at the
// default rate, where what has been claimed already stands before them for longer.
func (b *bench) measureUrgent(ctx context.Context) error {
	for _, at := range []urgency{
		{"urgent", "U", "as fast as the machine can", unlimited()},
		{"urgent_default_rate", "V", fmt.Sprintf("at %d/s", defaultPace().rate), defaultPace()},
	} {
		b.screen.Step("urgent: %d rows while a campaign of %s is being sent %s", urgentRows, stage.Count(int64(b.campaign())), at.what)
		if err := b.clear(ctx); err != nil {
			return err
		}
		if err := b.insertCrowd(ctx, bulkRows(b.campaign())); err != nil {
			return err
		}
		err := b.withDaemon(ctx, at.pace, func(daemon *stage.Process) error {
			return b.urgent(ctx, daemon, at)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) urgent(ctx context.Context, daemon *stage.Process, at urgency) error {
	if err := b.awaitDelivered(ctx, daemon, int64(min(1000, b.campaign()/4))); err != nil {
		return err
	}
	begin := time.Now()
	before, err := b.delivered(ctx)
	if err != nil {
		return err
	}
	latencies, err := b.latencies(ctx, daemon, singleRows{at.kind, urgentRows, 0})
	if err != nil {
		return err
	}
	after, err := b.delivered(ctx)
	if err != nil {
		return err
	}
	b.screen.Say("the campaign goes on with %s messages/s", number(float64(after-before)/time.Since(begin).Seconds()))
	if over, err := b.done(ctx, 0); err != nil {
		return err
	} else if over {
		b.screen.Say("the campaign was over before the urgent rows were: this figure says nothing")
	}
	b.add(figure{at.name + "_p50", millis(latencies, 0.5), "ms", target{}, "INSERT to delivery of an urgent row in a campaign " + at.what + ", median"})
	b.add(figure{at.name + "_max", millis(latencies, 1), "ms", atMost(1000), fmt.Sprintf("the slowest of %d of them", len(latencies))})
	return nil
}

const (
	fairRate = 1000 // a second: the others take a minute and more
	fairRows = 100
	fairMost = 5 // seconds
)

// otherTemplate is one that the configuration does not name, and fairMessage a message of it.
func otherTemplate() string { return wechatsim.StandardTemplates()[1].ID }

const fairMessage = `{"thing1":"已完成"}`

// measureFair inserts a few rows of one template while many of another one, with the same priority, are being
// sent.
func (b *bench) measureFair(ctx context.Context) error {
	many := b.requests / 2
	b.screen.Step("fair: %s rows of a template at %d/s, then %d of another one", stage.Count(int64(many)), fairRate, fairRows)
	if err := b.insertCrowd(ctx, dueRows(many)); err != nil {
		return err
	}
	return b.withDaemon(ctx, pace{fairRate, 64}, func(daemon *stage.Process) error {
		if err := b.awaitDelivered(ctx, daemon, int64(min(2*fairRate, many/4))); err != nil {
			return err
		}
		last, err := b.lastID(ctx)
		if err != nil {
			return err
		}
		begin := time.Now()
		if err := b.insertFair(ctx); err != nil {
			return err
		}
		if err := b.awaitDone(ctx, daemon, open{after: last}); err != nil {
			return err
		}
		messages, err := b.simulator.Messages(ctx)
		if err != nil {
			return err
		}
		var took time.Duration
		got := 0
		for _, m := range messages {
			if m.TemplateID == otherTemplate() {
				took, got = max(took, m.Time.Sub(begin)), got+1
			}
		}
		if got != fairRows {
			return fmt.Errorf("%d of %d messages of the other template were delivered", got, fairRows)
		}
		b.add(figure{"fair_seconds", took.Seconds(), "s", atMost(fairMost),
			fmt.Sprintf("%d rows of another template behind %s of the same priority, at %d/s", fairRows, stage.Count(int64(many)), fairRate)})
		return nil
	})
}

func (b *bench) insertFair(ctx context.Context) error {
	args := make([]any, 0, 3*fairRows)
	for i := range fairRows {
		args = append(args, b.users[i%len(b.users)].OpenID, otherTemplate(), fairMessage)
	}
	query := `INSERT INTO send_request (mini_openid, template, data) VALUES ` + strings.Repeat(`(?, ?, ?), `, fairRows-1) + `(?, ?, ?)`
	if _, err := b.db.ExecContext(ctx, query, args...); err != nil {
		return fmt.Errorf("inserting requests: %w", err)
	}
	return nil
}
