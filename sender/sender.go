// Package sender turns rows that producers INSERT into send_request into template messages, and writes
// the outcome back. Of its own packages, requests and retention see the same table from outside.
//
// One instance at a time claims for an account: the holder of the account's lease. A claim is a
// visibility timeout: it moves due_at past the time an attempt can take, so that a row whose instance
// died falls due again without a rescuer. What a claim did not settle counts as uncertain: it is sent
// again only while WeChat still drops a second message with the same client_msg_id.
package sender

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

// API is what the sender asks WeChat. SendTemplate makes exactly one POST a call.
type API interface {
	SendTemplate(ctx context.Context, m wechat.TemplateMessage) (msgid int64, err error)
	PrivateTemplates(ctx context.Context) ([]wechat.Template, error)
	Quota(ctx context.Context, cgiPath string) (wechat.Quota, error)
}

// Identities is what the sender needs of the identity map.
type Identities interface {
	Resolve(ctx context.Context, appid string, recipients []bridge.Recipient) ([]bridge.Resolution, error)
	Ask(ctx context.Context, appid string, openids []string, doubt bridge.Doubt) error
	Block(ctx context.Context, r bridge.Refusal, d time.Duration) error
}

// Account is one official account to send from.
type Account struct {
	AppID       string
	API         API
	Rate        float64       // messages a second, at most
	Concurrency int           // POSTs in flight
	MaxAttempts int           // attempts after which a transient error becomes final
	Wait        time.Duration // how long a request waits for its recipient to follow
	Default     bool          // rows without appid belong to this account

	ResendWindow  time.Duration // how long an attempt whose outcome is not known may be repeated
	Preflight     bool          // check messages against the account's templates first
	DailyBudget   int64         // messages a day at most; 0: as many as WeChat allows
	UrgentReserve float64       // share of the day's messages for urgent requests only, 0 to 1
	BlockedFor    time.Duration // how long a person counts as blocking the account after a receipt said so
}

// Config is what a Service needs; every field is required but Templates, MiniAppIDs, Truncate and QuotaResetHour.
type Config struct {
	DB          *sqlx.DB
	Leases      *database.Leases
	Identities  Identities
	Accounts    []Account
	Templates   map[string]map[string]string // alias → appid → template id
	MiniAppIDs  []string                     // the configured mini programs; a single one is the default
	Truncate    map[string]bool              // aliases whose values of type thing are cut to WeChat's limit
	SendTimeout time.Duration                // longest time of one POST; at most MaxSendTimeout
	Logger      *slog.Logger
	Registerer  prometheus.Registerer
	Now         func() time.Time

	QuotaResetHour int // hour in China at which WeChat's quotas of the day begin anew, 0 to 23
}

// MaxSendTimeout keeps a POST shorter than a claim with a margin, so that no row falls due while its
// message is on its way.
const MaxSendTimeout = 20 * time.Second

const (
	// visibility is how long a claim keeps a row from falling due again. It is also how long the rows of
	// a killed instance lie still.
	visibility = 60 * time.Second
	// maxClaim rows are claimed at once. 500 measured a twentieth slower, and these are the rows that a kill
	// leaves uncertain.
	maxClaim = 800
)

// Service sends for all accounts.
type Service struct {
	cfg          Config
	store        store
	installation string
	metrics      *metrics
	accounts     []*account
	lanes        laneList
	takenOver    chan struct{} // an account has been taken over; holds one token

	cancel  context.CancelFunc
	running sync.WaitGroup
}

// New returns a Service that does nothing until Start.
func New(cfg Config) (*Service, error) {
	if cfg.SendTimeout <= 0 || cfg.SendTimeout > MaxSendTimeout {
		return nil, fmt.Errorf("wechat.send_timeout is %s: it must be above 0 and at most %s, so that a claim outlives a POST",
			cfg.SendTimeout, MaxSendTimeout)
	}
	s := &Service{cfg: cfg, store: store{db: cfg.DB}, metrics: newMetrics(cfg.Registerer),
		takenOver: make(chan struct{}, 1)}
	for _, a := range cfg.Accounts {
		s.accounts = append(s.accounts, newAccount(s, a))
	}
	return s, nil
}

// Start reads the installation's id and begins to send; it returns at once.
func (s *Service) Start(ctx context.Context) error {
	id, err := s.store.installation(ctx)
	if err != nil {
		return err
	}
	s.installation = id
	ctx, s.cancel = context.WithCancel(ctx)
	for _, a := range s.accounts {
		s.running.Go(func() { a.run(ctx) })
	}
	s.running.Go(func() { s.poll(ctx) })
	s.running.Go(func() { s.watchLeases(ctx) })
	s.running.Go(func() { s.maintain(ctx) })
	return nil
}

// Stop ends the claiming, lets the POSTs that are on their way finish, gives back the rows that were
// claimed and not sent yet without counting an attempt, and waits for that until ctx ends. It may be
// called more than once and without Start.
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
