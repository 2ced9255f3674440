package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

const (
	takeovers    = 3
	takeoverMost = 15 // seconds
	takeoverRows = 20 * time.Millisecond
)

// instance is one of several daemons, in a folder of its own.
type instance struct {
	folder *stage.Stage
	listen string
	daemon *stage.Process
}

func (b *bench) newInstance(ctx context.Context) (*instance, error) {
	folder, err := stage.New("ub-bench-")
	if err != nil {
		return nil, err
	}
	b.stage.OnClose(folder.Close)
	folder.Binary = b.stage.Binary
	listen, err := stage.FreeAddr(ctx)
	if err != nil {
		return nil, err
	}
	return &instance{folder: folder, listen: listen}, b.configure(folder, listen, defaultPace())
}

func (i *instance) start(ctx context.Context) (err error) {
	i.daemon, err = i.folder.StartDaemon(ctx, i.listen)
	return err
}

func (i *instance) stop() error {
	if i.daemon == nil {
		return nil
	}
	return i.daemon.Stop()
}

// measureTakeover kills the instance that sends, while rows keep coming, and takes the time until the other one
// sends; the dead one comes back and is next.
func (b *bench) measureTakeover(ctx context.Context) error {
	b.screen.Step("takeover: two daemons, kill -9 of the one that sends, %d times", takeovers)
	leader, err := b.newInstance(ctx)
	if err != nil {
		return err
	}
	other, err := b.newInstance(ctx)
	if err != nil {
		return err
	}
	if err := leader.start(ctx); err != nil {
		return err
	}
	rows := b.startTrickle(ctx)
	var slowest time.Duration
	err = b.awaitDelivered(ctx, leader.daemon, 1)
	for range takeovers {
		if err != nil {
			break
		}
		var took time.Duration
		took, err = b.takeover(ctx, leader, other, rows)
		slowest = max(slowest, took)
		leader, other = other, leader
	}
	if err := errors.Join(err, rows.stop(), other.stop(), leader.stop()); err != nil {
		return err
	}
	b.add(figure{"takeover_seconds", slowest.Seconds(), "s", atMost(takeoverMost),
		fmt.Sprintf("from the kill -9 of the leader to the other one's first send, the longest of %d", takeovers)})
	return nil
}

// takeover kills the leader and returns how long nobody sent what was inserted since.
func (b *bench) takeover(ctx context.Context, leader, other *instance, rows *trickle) (time.Duration, error) {
	if err := other.start(ctx); err != nil {
		return 0, err
	}
	if err := sleep(ctx, 2*time.Second); err != nil { // until it stands by
		return 0, err
	}
	if err := b.simulator.Reset(ctx); err != nil {
		return 0, err
	}
	leader.daemon.Kill()
	killed := time.Now()
	var took time.Duration
	waiting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := b.poll(waiting, other.daemon, func() (bool, error) {
		messages, err := b.simulator.Messages(ctx)
		for _, m := range messages {
			// What the dead one had on its way may still arrive, but nothing that was inserted later.
			if begun, ok := rows.begun(orderOf(m)); ok && begun.After(killed) {
				took = m.Time.Sub(killed)
				return true, nil
			}
		}
		return false, err
	})
	if err != nil {
		return 0, fmt.Errorf("%w\n%s", err, other.folder.LogTail(stage.DaemonLog))
	}
	b.screen.Say("%.1f s", took.Seconds())
	return took, nil
}

// trickle inserts a row again and again.
type trickle struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error // once done is closed

	mu   sync.Mutex
	rows map[string]time.Time // when the INSERT began, by order number
}

func (b *bench) startTrickle(ctx context.Context) *trickle {
	t := &trickle{done: make(chan struct{}), rows: make(map[string]time.Time)}
	ctx, t.cancel = context.WithCancel(ctx)
	go func() {
		defer close(t.done)
		for i := 0; sleep(ctx, takeoverRows) == nil; i++ {
			t.mu.Lock()
			t.rows[order("T", i)] = time.Now()
			t.mu.Unlock()
			_, err := b.db.ExecContext(ctx, `INSERT INTO send_request (mini_openid, template, data) VALUES (?, ?, ?)`,
				b.users[i%len(b.users)].OpenID, stage.Template, message("T", i))
			if err != nil && ctx.Err() == nil {
				t.err = fmt.Errorf("inserting a request: %w", err)
				return
			}
		}
	}()
	return t
}

func (t *trickle) begun(number string) (time.Time, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	begun, ok := t.rows[number]
	return begun, ok
}

func (t *trickle) stop() error {
	t.cancel()
	<-t.done
	return t.err
}
