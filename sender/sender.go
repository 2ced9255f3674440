// Package sender turns rows that producers INSERT into send_request into messages, and writes the
// outcome back. It is the engine: it decides when a row is claimed, sent and settled. What the
// database does stands in sender/queue, whether a message may go now in sender/throttle, and what
// one kind of message needs in sender/channel; this package never looks at an errcode.
//
// One instance at a time claims for an account: the holder of the account's lease. A claim is a
// visibility timeout, so that a row whose instance died falls due again without a rescuer. What a
// claim did not settle is in doubt: it is sent again only while WeChat still drops a second message
// with the same client_msg_id.
package sender

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/sender/lanes"
	"github.com/unionbridge/unionbridge/sender/queue"
	"github.com/unionbridge/unionbridge/sender/settle"
	"github.com/unionbridge/unionbridge/sender/throttle"
	"github.com/unionbridge/unionbridge/sender/waiting"
)

// MaxSendTimeout keeps a POST shorter than a claim with a margin, so that no row falls due while
// its message is on its way.
const MaxSendTimeout = 20 * time.Second

// Service sends for all accounts.
type Service struct {
	*shared
	accounts []*account

	cancel  context.CancelFunc
	running sync.WaitGroup
}

// New returns a Service that does nothing until Start.
func New(cfg Config) (*Service, error) {
	if cfg.SendTimeout <= 0 || cfg.SendTimeout > MaxSendTimeout {
		return nil, fmt.Errorf("wechat.send_timeout is %s: it must be above 0 and at most %s, "+
			"so that a claim outlives a POST", cfg.SendTimeout, MaxSendTimeout)
	}
	q, rules := queue.New(cfg.DB), rulesOf(cfg)
	s := &Service{shared: &shared{
		Config: cfg, queue: q,
		lanes:   lanes.NewList(q.Watch(aliasLanes(cfg, rules), queue.Pending), cfg.Now),
		metrics: newMetrics(cfg.Registerer), takenOver: make(chan struct{}, 1),
	}}
	held := throttle.NewMetrics(cfg.Registerer)
	for _, a := range cfg.Accounts {
		if len(a.Channels) != 1 || a.Channels[0].AppID() != a.AppID {
			return nil, fmt.Errorf("account %s must have one channel, and of its own appid", a.AppID)
		}
		log := cfg.Logger.With("appid", a.AppID)
		acct := &account{
			Account: a, shared: s.shared, log: log,
			transport: newTransport(q, a.Channels[0], a.Concurrency),
			seconds:   s.metrics.seconds.WithLabelValues(a.AppID),
			signals:   newSignals(),
			throttle: throttle.New(throttle.Config{
				AppID: a.AppID, Rate: a.Rate, DailyBudget: a.DailyBudget, UrgentReserve: a.UrgentReserve,
				QuotaPath: a.Channels[0].Traits().QuotaPath, Quota: a.Quota,
				Credentials: a.Credentials,
				Day:         cfg.QuotaDay, Reset: cfg.QuotaReset,
				DB: cfg.DB, Metrics: held, Logger: log, Now: cfg.Now,
			}),
		}
		acct.settler = settle.New(settle.Config{AppID: a.AppID, Store: q, Hook: acct.hook(), Written: acct.written,
			Tried: acct.tried, Enough: acct.enough(), Logger: log, Now: func() time.Time { return s.Now() }})
		s.accounts = append(s.accounts, acct)
	}
	s.routing = routing{rules: rules, all: func() []*account { return s.accounts }}
	s.mover = s.newMover()
	s.releaser = waiting.New(s.waitingConfig())
	return s, nil
}

// Start reads the installation's id and begins to send; it returns at once.
func (s *Service) Start(ctx context.Context) error {
	id, err := s.queue.Installation(ctx)
	if err != nil {
		return err
	}
	s.installation = id
	ctx, s.cancel = context.WithCancel(ctx)
	for _, a := range s.accounts {
		s.running.Go(func() { a.run(ctx) })
	}
	p := &poller{shared: s.shared, accounts: s.accounts}
	s.running.Go(func() { p.run(ctx) })
	s.running.Go(func() { p.watchLeases(ctx) })
	s.running.Go(func() { s.releaser.Run(ctx) })
	s.running.Go(func() { newMaintenance(s).run(ctx) })
	return nil
}

// Stop ends the claiming, lets the POSTs that are on their way finish, gives back the rows that
// were claimed and not sent yet without counting an attempt, and waits for that until ctx ends. It
// may be called more than once and without Start.
func (s *Service) Stop(ctx context.Context) error {
	if s.cancel == nil {
		return nil
	}
	s.cancel()
	done := make(chan struct{})
	go func() {
		s.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for sends to finish: %w", ctx.Err())
	}
}

// Unsettled returns why outcomes cannot be written, where that has lasted for a minute or one is
// refused; nil: they are written.
func (s *Service) Unsettled() error {
	var all []error
	for _, a := range s.accounts {
		all = append(all, a.settler.Trouble())
	}
	return errors.Join(all...)
}

// TokenTaken says that WeChat took an account's token for another call than a message. It ends a pause
// for want of credentials. It returns at once.
func (s *Service) TokenTaken(appid string) {
	for _, a := range s.accounts {
		if a.AppID == appid {
			notify(a.tokenTaken)
		}
	}
}

// Changed releases the requests that wait for one of the keys, where their recipients can be
// reached now: it makes the Service the map's watcher. It works on the tables alone, so it does not
// matter which instance sends for an account, and a Service need not have been started.
func (s *Service) Changed(ctx context.Context, keys []bridge.Key) {
	s.releaser.Changed(ctx, keys)
}

func (s *Service) waitingConfig() waiting.Config {
	cfg := waiting.Config{
		Queue: s.queue, Mover: s.mover, MiniAppIDs: s.MiniAppIDs, Logins: s.Logins,
		Explain: explain, Moved: s.metrics.moved,
		Logger: s.Logger, Now: func() time.Time { return s.Now() },
	}
	for _, a := range s.accounts {
		cfg.Accounts = append(cfg.Accounts, waiting.Account{AppID: a.AppID, Since: a.sendingSince})
	}
	return cfg
}

// Receipt stores what WeChat says became of a message; a second one of the same message changes
// nothing. It may come before the message's own outcome is written, and of messages that other
// programs sent.
func (s *Service) Receipt(ctx context.Context, appid string, r queue.Receipt) error {
	fresh, err := s.queue.AddReceipt(ctx, appid, r)
	if fresh {
		s.metrics.receipts.WithLabelValues(appid, receiptLabel(r.Status)).Inc()
	}
	return err
}
