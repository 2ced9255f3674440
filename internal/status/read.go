package status

import (
	"context"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/observation"
	"github.com/unionbridge/unionbridge/sender/queue"
	"github.com/unionbridge/unionbridge/sender/requests"
	"github.com/unionbridge/unionbridge/sync"
)

// Config is what a report is about.
type Config struct {
	Accounts []Settings
	Coverage bool // count what the map covers: reads both tables of people whole
	Now      time.Time
}

// Settings are what the configuration says of an account that sends.
type Settings struct {
	AppID, Name    string
	Default        bool
	Mini           bool   // a mini program
	Sweep, Refresh string // schedules, of an official account
}

// reader makes a Report of what the packages have read.
type reader struct {
	cfg         Config
	queue       requests.Overview
	ages        requests.Ages
	quotas      []observation.Quota
	problems    []observation.Problem
	held        []database.HeldLease
	coverage    []bridge.Coverage
	miniWithout int64 // mini-program users without a unionid
}

// Read makes a report. The user needs SELECT on the tables.
func Read(ctx context.Context, db *sqlx.DB, cfg Config) (Report, error) {
	r := reader{cfg: cfg}
	if err := r.read(ctx, db); err != nil {
		return Report{}, err
	}
	s := Report{
		At: Time{cfg.Now}, Accounts: []Account{}, Queue: r.queueReport(),
		Quotas: r.quotaReport(), Pauses: NewPauses(r.queue.Pauses), Leases: []Lease{},
	}
	alarms := alarmList{}
	for _, a := range cfg.Accounts {
		var history sync.History
		var err error
		if !a.Mini {
			if history, err = sync.ReadHistory(ctx, db, a.AppID); err != nil {
				return Report{}, err
			}
		}
		account, err := r.account(a, history)
		if err != nil {
			return Report{}, err
		}
		s.Accounts = append(s.Accounts, account)
		if err := r.accountAlarms(&alarms, a, history); err != nil {
			return Report{}, err
		}
	}
	r.queueAlarms(&alarms)
	r.problemAlarms(&alarms)
	s.Alarms = alarms
	for _, l := range r.held {
		s.Leases = append(s.Leases, Lease{l.Name, l.Holder, l.Epoch, Time{l.ExpiresAt}})
	}
	return s, nil
}

// read fetches what all accounts share.
func (r *reader) read(ctx context.Context, db *sqlx.DB) (err error) {
	if r.held, err = database.HeldLeases(ctx, db); err != nil {
		return err
	}
	var appids []string
	for _, a := range r.cfg.Accounts {
		appids = append(appids, a.AppID)
	}
	table := requests.Store{DB: db}
	if r.queue, err = table.Overview(ctx, appids); err != nil {
		return err
	}
	if r.ages, err = table.Ages(ctx, lateAfter); err != nil {
		return err
	}
	seen := observation.Store{DB: db}
	if r.quotas, err = seen.Quotas(ctx); err != nil {
		return err
	}
	if r.problems, err = seen.Problems(ctx); err != nil {
		return err
	}
	if r.cfg.Coverage {
		r.coverage, r.miniWithout, err = bridge.New(db).Coverage(ctx)
	}
	return err
}

// NewPauses returns pauses as the report has them.
func NewPauses(pauses []requests.Pause) []Pause {
	list := make([]Pause, len(pauses))
	for i, p := range pauses {
		list[i] = Pause{
			AppID: p.AppID, Scope: p.Scope, Reason: p.Reason, ErrCode: p.ErrCode, ErrMsg: p.ErrMsg,
			Since: Time{p.Since}, Until: optional(Time{p.Until}),
		}
	}
	return list
}

func (r reader) account(a Settings, h sync.History) (s Account, err error) {
	s = Account{
		AppID: a.AppID, Kind: KindOfficial, Name: a.Name, Default: a.Default,
		SentBy: optional(r.holder(queue.LeaseName(a.AppID))),
	}
	if a.Mini {
		s.Kind = KindMini
		return s, nil
	}
	if s.Sweep.Job, err = r.job(a.Sweep, h.Sweep); err != nil {
		return s, err
	}
	s.Sweep.LastGood = newRun(h.GoodSweep)
	s.Refresh, err = r.job(a.Refresh, h.Refresh)
	for _, c := range r.coverage {
		if c.AppID == a.AppID {
			s.Coverage = &Coverage{
				Followers: c.Followers, Subscribed: c.Subscribed, WithUnionID: c.WithUnionID,
				NotAsked: c.NotAsked, AskedWithoutUnionID: c.AskedWithoutUnionID,
				UnionIDs: string(c.UnionIDs()), MiniUsers: c.MiniUsers,
				MiniUsersWithoutUnionID: r.miniWithout, ReachableMiniUsers: c.ReachableMiniUsers,
			}
		}
	}
	return s, err
}

func (r reader) job(schedule string, last *sync.Run) (Job, error) {
	next, err := sync.NextTurn(schedule, r.cfg.Now)
	return Job{Schedule: schedule, NextAt: optional(Time{next}), Last: newRun(last)}, err
}

func newRun(r *sync.Run) *Run {
	if r == nil {
		return nil
	}
	return &Run{
		ID: r.ID, Mode: r.Mode, State: string(r.State), StartedAt: Time{r.Started},
		EndedAt: optional(Time{r.Ended}), ResumeAt: optional(Time{r.ResumeAt}), Total: r.Total,
		Listed: r.Listed, Added: r.Added, Changed: r.Changed, Missing: r.Missing, Gone: r.Gone,
		Calls: r.Calls, Error: optional(r.Error),
	}
}

// holder is who holds a lease; "": nobody.
func (r reader) holder(lease string) string {
	for _, l := range r.held {
		if l.Name == lease {
			return l.Holder
		}
	}
	return ""
}

func (r reader) queueReport() Queue {
	q := Queue{Open: []Open{}, Stuck: []Stuck{}}
	for _, o := range r.queue.Open {
		open := Open{AppID: optional(o.AppID), Status: o.Status, Requests: o.Requests, Late: o.Late,
			OldestDueAt: Time{o.Oldest}, Capped: o.Capped, ByPriority: []PriorityCount{}}
		for _, p := range o.Priorities {
			open.ByPriority = append(open.ByPriority, PriorityCount(p))
		}
		for _, age := range r.ages.Oldest {
			if age.AppID == o.AppID && age.Status == o.Status {
				open.OldestSeconds = &age.Seconds
			}
		}
		q.Open = append(q.Open, open)
	}
	for _, p := range r.ages.Postponed {
		if p.Reason != "" {
			q.Stuck = append(q.Stuck, Stuck{optional(p.AppID), p.Reason, p.Requests, Time{p.Since}})
		}
	}
	q.Recent.Requests, q.Recent.ByReason = r.queue.Sampled, []Outcome{}
	for _, o := range r.queue.Recent {
		q.Recent.ByReason = append(q.Recent.ByReason,
			Outcome{o.Status, optional(o.Reason), o.Requests})
	}
	return q
}

// quotaReport leaves out accounts that the configuration has not, or not any more.
func (r reader) quotaReport() []Quota {
	quotas := []Quota{}
	for _, q := range r.quotas {
		if r.configured(q.AppID) {
			quotas = append(quotas, Quota{q.AppID, q.Endpoint, q.Limit, q.Remaining, Time{q.AskedAt}})
		}
	}
	return quotas
}

func (r reader) configured(appid string) bool {
	return slices.ContainsFunc(r.cfg.Accounts, func(a Settings) bool { return a.AppID == appid })
}
