// Package sync keeps the map up to date. It reads the follower list of each official account,
// compares it with the table, asks WeChat about the difference, and stores that through package
// bridge. It owns the table sync_run.
//
// The package was named by the project's owner. It exports no name that the standard library's sync
// has, and only cmd and web import it.
package sync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

// API is what a sweep asks WeChat.
type API interface {
	Followers(ctx context.Context, nextOpenID string) (wechat.FollowerPage, error)
	UserInfo(ctx context.Context, openid string) (wechat.UserInfo, error)
	BatchUserInfo(ctx context.Context, openids []string) ([]wechat.UserInfo, error)
	Quota(ctx context.Context, cgiPath string) (wechat.Quota, error)
}

// Account is one official account to keep in step.
type Account struct {
	AppID        string
	API          API
	Sweep        string  // cron line of the whole list, standard five fields or @every
	Refresh      string  // cron line of the questions that are open
	MaxGone      float64 // share of the subscribed rows that one sweep may mark as gone, 0 to 1
	QuotaReserve float64 // share of the day's quotas that is left for others, 0 to 1
	KeepRuns     int     // runs of a kind that the ledger keeps; 0: all
	Concurrency  int     // batchget calls in flight
}

// Config is what a Service needs. Every field is required unless it says otherwise.
type Config struct {
	DB         *sqlx.DB
	Leases     *database.Leases
	Accounts   []Account
	SpoolDir   string // where the follower list is sorted; 29 bytes a follower while a sweep runs
	Holder     string // this instance, as the ledger names it
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time

	QuotaResetHour int // hour in China at which WeChat resets the day's quotas, 0 to 23

	Watcher bridge.Watcher // is told of what the runs change in the map; nil: nobody is
}

// ErrBusy is returned if another instance, or another command, works on the same account.
var ErrBusy = errors.New("another instance is sweeping this account")

// ErrTooManyGone is returned by a sweep that would have marked more followers as gone than the
// account's MaxGone allows. It has marked nobody.
var ErrTooManyGone = errors.New("too many followers would be marked as gone")

// Service runs sweeps and refreshes of all accounts.
type Service struct {
	cfg        Config
	identities *bridge.Map
	ledger     ledger
	metrics    *metrics
	accounts   map[string]Account
	schedule   *schedule

	adoptEvery time.Duration
}

// New returns a Service that does nothing until Start, Sweep or Refresh is called.
func New(cfg Config) *Service {
	s := &Service{
		cfg:        cfg,
		identities: bridge.New(cfg.DB).Watched(cfg.Watcher),
		ledger:     ledger{db: cfg.DB, holder: cfg.Holder},
		metrics:    newMetrics(cfg.Registerer),
		accounts:   make(map[string]Account, len(cfg.Accounts)),

		adoptEvery: adoptEvery,
	}
	for _, a := range cfg.Accounts {
		s.accounts[a.AppID] = a
	}
	return s
}

// Sweep updates the map of one official account from WeChat's follower list. It returns the run as
// the ledger has it, also beside an error. progress, if not nil, is called from one goroutine a few
// times a second. Errors: ErrBusy, ErrTooManyGone, *wechat.Error, and the database's.
func (s *Service) Sweep(ctx context.Context, appid string, progress func(Progress)) (Run, error) {
	return s.perform(ctx, job{kind: kindSweep, appid: appid, progress: progress, do: (*sweep).do})
}

// AcceptGone sweeps the account of a run that was blocked because too many followers would have
// been marked as gone, and allows as many as that run missed. Each of them is still checked first.
func (s *Service) AcceptGone(ctx context.Context, run int64, progress func(Progress)) (Run, error) {
	row, err := s.ledger.byID(ctx, run)
	if err != nil {
		return Run{}, err
	}
	if row == nil || row.State != StateBlocked {
		return Run{}, fmt.Errorf(
			"run %d is not a blocked sweep: `unionbridge status` shows the runs", run)
	}
	last, err := s.ledger.last(ctx, kindSweep, row.AppID)
	if err != nil {
		return Run{}, err
	}
	if last.ID != run {
		const text = "run %d is not the last sweep of %s any more, run %d is: look at that one"
		return Run{}, fmt.Errorf(text, run, row.AppID, last.ID)
	}
	return s.perform(ctx, job{
		kind: kindSweep, appid: row.AppID, progress: progress, do: (*sweep).do,
		accept: row.Missing + freeGone, // more people leave meanwhile
	})
}

// Refresh rechecks the people of one account who are due. If nobody is, it leaves no row in the
// ledger and returns an empty Run.
func (s *Service) Refresh(ctx context.Context, appid string) (Run, error) {
	due, err := s.identities.DueRechecks(ctx, appid, bridge.Due{Limit: 1})
	if err != nil || len(due) == 0 {
		return Run{}, err
	}
	return s.perform(ctx, job{kind: kindRefresh, appid: appid, do: (*sweep).refresh})
}

type job struct {
	kind     string
	appid    string
	progress func(Progress) // nil: nobody looks
	accept   int64          // followers whom an operator allows to be marked as gone
	do       func(*sweep, context.Context) error
}

func errUnknownAccount(appid string) error {
	return fmt.Errorf("official account %s is not configured: add it to official_accounts", appid)
}

// perform holds the account's lease and a ledger row around one job.
func (s *Service) perform(ctx context.Context, j job) (Run, error) {
	account, ok := s.accounts[j.appid]
	if !ok {
		return Run{}, errUnknownAccount(j.appid)
	}
	ctx, release, err := s.lease(ctx, j.kind, j.appid)
	if err != nil {
		return Run{}, err
	}
	defer release()
	sw, err := s.newSweep(ctx, account, newRun(j.kind, j.appid, s.cfg.Now()))
	if err != nil {
		return Run{}, err
	}
	sw.accept = j.accept
	if err := s.ledger.open(ctx, sw.run, account.KeepRuns); err != nil {
		return Run{}, err
	}
	stopReports := sw.report(ctx, j.progress)
	err = j.do(sw, ctx)
	if err != nil && context.Cause(ctx) != nil {
		err = fmt.Errorf("%w (%w)", err, context.Cause(ctx))
	}
	stopReports()
	sw.run.end(err, s.cfg.Now(), s.cfg.QuotaResetHour)
	ledgerErr := database.Detached(ctx, func(ctx context.Context) error {
		return s.ledger.close(ctx, sw.run)
	})
	if ledgerErr != nil {
		s.cfg.Logger.Error("closing the run in the ledger", "run", sw.run.ID, "err", ledgerErr)
		err = errors.Join(err, ledgerErr)
	}
	final := sw.run.snapshot()
	s.metrics.observe(final)
	return final, err
}

// lease acquires the lease of a kind and account. The context ends with it. The error is ErrBusy if
// another instance has it.
func (s *Service) lease(
	ctx context.Context, kind, appid string,
) (held context.Context, release func(), err error) {
	lease, err := s.cfg.Leases.TryAcquire(ctx, LeaseName(kind, appid))
	if err != nil {
		return nil, nil, fmt.Errorf("acquiring the %s lease of %s: %w", kind, appid, err)
	}
	if lease == nil {
		return nil, nil, fmt.Errorf("%s: %w", appid, ErrBusy)
	}
	held, cancel := lease.Context(ctx)
	return held, func() {
		cancel()
		if err := database.Detached(ctx, lease.Release); err != nil {
			s.cfg.Logger.Warn("releasing a lease", "lease", lease.Name(), "err", err)
		}
	}, nil
}
