package main

import (
	"context"
	"time"

	"github.com/unionbridge/unionbridge/internal/doctor"
	"github.com/unionbridge/unionbridge/internal/observation"
	"github.com/unionbridge/unionbridge/internal/status"
	"github.com/unionbridge/unionbridge/internal/status/figures"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

// observeTimeout bounds the writing of what was seen: it is not worth waiting for.
const observeTimeout = 2 * time.Second

// keepQuota returns what stores WeChat's answers about an account's quotas. A command without a
// database stores none.
func (p *parts) keepQuota(appid string) func(context.Context, string, wechat.Quota) {
	return func(ctx context.Context, path string, q wechat.Quota) {
		if p.db == nil {
			return
		}
		ctx, cancel := context.WithTimeout(ctx, observeTimeout)
		defer cancel()
		err := observation.Store{DB: p.db}.SaveQuota(ctx, observation.Quota{
			AppID: appid, Endpoint: path, Limit: q.DailyLimit, Remaining: q.Remain,
		})
		if err != nil && ctx.Err() == nil {
			p.log.Warn("storing a quota for status and metrics", "appid", appid, "err", err)
		}
	}
}

// keepProblems stores what a check of an account found.
func (p *parts) keepProblems(ctx context.Context, appid string, found []doctor.Problem) {
	problems := make([]observation.Problem, len(found))
	for i, f := range found {
		problems[i] = observation.Problem{AppID: appid, Reason: f.Reason, Subject: f.Subject,
			Text: f.Text, Cure: f.Cure}
	}
	ctx, cancel := context.WithTimeout(ctx, observeTimeout)
	defer cancel()
	err := observation.Store{DB: p.db}.SaveProblems(ctx, appid, problems)
	if err != nil && ctx.Err() == nil {
		p.log.Warn("storing an account's problems for status and metrics", "appid", appid, "err", err)
	}
}

// figures returns what page and metrics of this daemon show.
func (p *parts) figures() *figures.Cache {
	return figures.NewCache(func(ctx context.Context) (status.Report, error) {
		return status.Read(ctx, p.db, statusConfig(p.cfg, false))
	}, time.Now)
}
