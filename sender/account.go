package sender

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/attempt"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/lanes"
	"github.com/unionbridge/unionbridge/sender/move"
	"github.com/unionbridge/unionbridge/sender/queue"
	"github.com/unionbridge/unionbridge/sender/route"
	"github.com/unionbridge/unionbridge/sender/settle"
	"github.com/unionbridge/unionbridge/sender/throttle"
	"github.com/unionbridge/unionbridge/sender/waiting"
)

// Account is one account to send from: anything with an appid that sends.
type Account struct {
	AppID       string
	Channels    []channel.Channel // of this appid; an account of either kind has one
	Rate        float64           // messages a second, at most
	Concurrency int               // POSTs in flight
	MaxAttempts int               // attempts after which a transient error becomes final
	Wait        time.Duration     // how long a request waits for its recipient to follow
	Default     bool              // rows without appid belong to this account

	// Repeat has the aliases whose messages are repeated in doubt where WeChat drops no second one.
	Repeat        map[string]bool
	ResendWindow  time.Duration // how long an attempt in doubt may be repeated, from its claim
	DailyBudget   int64         // messages a day at most; 0: as many as WeChat allows
	UrgentReserve float64       // share of the day's messages for urgent requests only, 0 to 1
	Calls
}

// Calls are what the sender asks WeChat besides messages.
type Calls struct {
	// Quota asks how many messages a day the account may send, and how many are left; limit 0: no
	// limit.
	Quota func(ctx context.Context, path string) (limit, remaining int64, err error)
	// Check makes a call that reaches nobody. Its Outcome says whether WeChat takes the account's
	// token (Confirms), or what a person must fix; neither: it is not known. nil: pauses end by
	// messages.
	Check func(ctx context.Context) channel.Outcome
	// Credentials reports whether a pause of this reason ends when WeChat takes the token; nil: none
	// does.
	Credentials func(reason string) bool
}

// Config is what a Service needs; every field is required but Templates, MiniAppIDs and
// Logins.
type Config struct {
	DB          *sqlx.DB
	Leases      *database.Leases
	Accounts    []Account
	Templates   channel.Templates
	MiniAppIDs  channel.MiniApps
	SendTimeout time.Duration // longest time of one POST; at most MaxSendTimeout
	Logger      *slog.Logger
	Registerer  prometheus.Registerer
	Now         func() time.Time

	// Logins reads who has used a mini program of late: bridge.Map.Logins. nil: nobody's login is
	// noticed but by the walk through all that waits.
	Logins waiting.LoginReader

	Moves

	// QuotaDay returns the beginning of the day, as quotas count it, that holds a moment;
	// QuotaReset when the next one begins.
	QuotaDay, QuotaReset func(time.Time) time.Time
}

// Moves is how requests go from one account to another; each may be nil.
type Moves struct {
	Routes map[string][]route.Kind // by alias, the order of its accounts; nil: the default one alone
	Levels move.Levels             // nil: all instances are as new as this one
	// NeedsPerson reports whether a pause of this reason ends only when somebody acts; nil: each does.
	NeedsPerson func(reason string) bool
}

// shared is what all accounts of a Service have in common.
type shared struct {
	Config
	queue        *queue.Queue
	installation string // read by Start
	metrics      *metrics
	lanes        *lanes.List
	releaser     *waiting.Releaser
	routing
	takenOver chan struct{} // an account has been taken over; holds one token
}

// routing is where rows go.
type routing struct {
	rules *route.Rules
	mover *move.Mover
	all   func() []*account
}

// account is the runtime of one Account: it sends while it holds the account's lease.
type account struct {
	Account
	*shared
	transport
	throttle *throttle.Account
	log      *slog.Logger
	seconds  prometheus.Observer // of its POSTs

	signals

	owner      atomic.Bool               // owns the lease
	idle       atomic.Bool               // owns the lease and has claimed all that was due
	since      atomic.Pointer[time.Time] // when the account was taken over
	redelivery redelivery
	settler    *settle.Settler
}

// transport is the account's way to people.
type transport struct {
	channel  channel.Channel
	attempts *attempt.Book // nil: what a claim did not settle is in doubt
	open     *attempt.Open // nil without attempts
}

// newTransport returns the way of an account with so many senders.
func newTransport(q *queue.Queue, c channel.Channel, senders int) transport {
	t := transport{channel: c, attempts: attempt.New(q, c)}
	if t.attempts != nil {
		t.open = attempt.NewOpen(senders)
	}
	return t
}

// enough is how many results are settled at once without waiting for more, 0 for the usual: where
// attempts are bounded, half of them, while the senders go on with the other half.
func (a *account) enough() int {
	if a.open == nil {
		return 0
	}
	return min(a.Concurrency, queue.MaxSettle)
}

// tried makes room for attempts whose results have been settled or set aside.
func (t *transport) tried(results []queue.Result) {
	if t.open == nil {
		return
	}
	ids := make([]int64, len(results))
	for i, r := range results {
		ids[i] = r.ID
	}
	t.open.Settled(ids...)
}

// hook ends attempts in the transaction that settles; nil: none are written down.
func (t *transport) hook() queue.Hook {
	if t.attempts == nil {
		return nil
	}
	return t.attempts.Settle
}

// signals each hold one token.
type signals struct {
	free       chan struct{} // nobody holds the account's lease
	wake       chan struct{} // the poller saw due rows
	loaded     chan struct{} // the account's state has been read
	tokenTaken chan struct{} // WeChat took the account's token for another call than a message
}

func newSignals() signals {
	return signals{make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}, 1),
		make(chan struct{}, 1)}
}

// owns reports whether a lane's rows are this account's.
func (a *account) owns(l queue.Lane) bool {
	appid := l.Account()
	return appid == a.AppID || appid == "" && a.rules.Home(l.Template) == a.AppID
}

// sendingSince is when the account was taken over; false: this instance does not send for it.
func (a *account) sendingSince() (since time.Time, sends bool) {
	if at := a.since.Load(); at != nil {
		since = *at
	}
	return since, a.owner.Load()
}

// resendWindow is how long after its claim an attempt in doubt may be repeated: a claim's time less
// than WeChat drops a second message. A POST that begins at the last moment may arrive its timeout
// later, and nobody knows when exactly WeChat begins to count.
//
// Where WeChat drops none, there is no such time, and what the configuration says is repeated.
func (a *account) resendWindow(template string) time.Duration {
	if a.attempts != nil && a.repeats(template) {
		return unlimited
	}
	return min(a.ResendWindow, a.channel.Traits().Idempotency-queue.Visibility)
}

// unlimited is longer than any request waits.
const unlimited = 100 * 365 * 24 * time.Hour

// repeats reports whether a message of a template is repeated whose outcome is in doubt, although
// WeChat may deliver both.
func (a *account) repeats(template string) bool { return a.Repeat[bridge.ID(template)] }

// backoff is initial doubled with every attempt after the first, up to limit, give or take a tenth.
func backoff(attempt int, initial, limit time.Duration) time.Duration {
	d := limit
	if shift := attempt - 1; shift < 20 && initial<<shift < limit {
		d = initial << shift
	}
	return d - d/10 + rand.N(d/5+1)
}

// notify puts a token into a channel that holds one.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
