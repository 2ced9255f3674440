package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

// bareSend POSTs the daemon's bodies, written beforehand, and throws the answers away: what the machine and the
// simulator allow when there is no database. It returns sends a second.
func (b *bench) bareSend(ctx context.Context, round int) (rate float64, err error) {
	bodies, err := b.bodies(ctx, round)
	if err != nil {
		return 0, err
	}
	s, err := b.newScript(ctx, handInFlight)
	if err != nil {
		return 0, err
	}
	if err := b.simulator.Reset(ctx); err != nil {
		return 0, err
	}
	cpu := b.watchCPU(ctx)
	begin := time.Now()
	next := make(chan string, len(bodies))
	for _, body := range bodies {
		next <- body
	}
	close(next)
	group, posting := errgroup.WithContext(ctx)
	for range handInFlight {
		group.Go(func() error {
			for body := range next {
				if err := s.postText(posting, pathSend, body, nil); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	took := time.Since(begin)
	rate = float64(len(bodies)) / took.Seconds()
	b.screen.Say("bare POSTs in %.1f s, %s/s; processor seconds: %s", took.Seconds(), stage.Count(int64(rate)), cpu)
	delivered, err := b.delivered(ctx)
	if err == nil && delivered != int64(len(bodies)) {
		err = fmt.Errorf("%d of %d bare messages were delivered", delivered, len(bodies))
	}
	return rate, err
}

// bodies are as many messages as there are requests, each to another follower.
func (b *bench) bodies(ctx context.Context, round int) (bodies []string, err error) {
	rows, err := b.db.QueryContext(ctx, `SELECT openid FROM follower WHERE appid = ? AND subscribed = 1 LIMIT ?`, stage.AppID, b.requests)
	if err != nil {
		return nil, fmt.Errorf("reading whom to send to: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var openid string
	for rows.Next() {
		if err := rows.Scan(&openid); err != nil {
			return nil, fmt.Errorf("reading whom to send to: %w", err)
		}
		number := order("F", len(bodies))
		bodies = append(bodies, fmt.Sprintf(`{"touser":"%s","template_id":"%s","client_msg_id":"bare-%d-%s","data":{"thing1":{"value":"热拿铁 & 可颂"},`+
			`"time2":{"value":"2026-01-02 15:04"},"amount3":{"value":"28.00元"},"character_string4":{"value":"%s"}}}`,
			openid, stage.TemplateID(), round, number, number))
	}
	return bodies, rows.Err()
}
