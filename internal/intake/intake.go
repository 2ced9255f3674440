package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/database"
)

// MaxBatch is how many messages Accept takes at once.
const MaxBatch = 500

// Registry says what applications may do and how much, an *applications.Registry.
type Registry interface {
	Allow(s applications.Session, call applications.Call, appid, template string) error
	Reserve(ctx context.Context, s applications.Session, n int64) (applications.Reservation, error)
	Cancel(reservation applications.Reservation)
	Spend(ctx context.Context, tx *sqlx.Tx, reservations ...applications.Reservation) error
}

// Way is an account that may send a message.
type Way struct {
	AppID string
	Call  applications.Call // the right that an application needs there
}

// Rules are what the configuration and the accounts' templates say of messages. They make no call.
type Rules interface {
	// Ways returns the accounts that may send a message, in the order in which they are tried; at least
	// one. It fills in what the configuration presets.
	Ways(m *Message) ([]Way, *Rejection)
	// Check says why the account would reject a message; nil: it would not, as far as is known.
	Check(m *Message, appid string) *Rejection
}

// Levels knows what the live instances can do, a *database.FeatureLevels.
type Levels interface {
	Lowest(ctx context.Context) (level int, holder string, err error)
}

// Config is what an Intake needs.
type Config struct {
	DB         *sqlx.DB
	Registry   Registry
	Rules      Rules
	Levels     Levels
	Archive    bool // finished messages are kept in the archive, where their keys count too
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Intake takes messages in. It is safe for concurrent use.
type Intake struct {
	cfg      Config
	key      keys
	jobs     chan *job
	messages *prometheus.CounterVec
}

// New returns an Intake that accepts nothing until Run.
func New(cfg Config) *Intake {
	in := &Intake{cfg: cfg, jobs: make(chan *job), key: keys{db: cfg.DB},
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unionbridge_door_messages_total",
			Help: "Messages of applications by outcome: accepted, repeated, refused, unavailable, unknown.",
		}, []string{"application", "outcome"}),
	}
	cfg.Registerer.MustRegister(in.messages)
	return in
}

// Accept takes messages of one application, at most MaxBatch, each of which gets its own result. It
// returns when all that could be accepted are committed, or ctx ends: set its deadline.
func (in *Intake) Accept(
	ctx context.Context, s applications.Session, messages []Message,
) []Result {
	results := make([]Result, len(messages))
	entries := make([]*entry, 0, len(messages))
	places := make([]int, 0, len(messages))
	err := in.ready(ctx, s, len(messages))
	for i := range messages {
		e := &entry{session: s}
		if results[i].Err = err; err == nil {
			results[i].Err = in.prepare(ctx, e, messages[i])
		}
		if results[i].Err == nil {
			entries, places = append(entries, e), append(places, i)
		}
	}
	if len(entries) > 0 {
		in.submit(ctx, s, entries)
	}
	for i, e := range entries {
		results[places[i]] = e.result
	}
	in.count(s, results)
	return results
}

// ready looks at what holds for all messages.
func (in *Intake) ready(ctx context.Context, s applications.Session, n int) error {
	if s.Application == nil || n > MaxBatch {
		return &Rejection{Code: codeData, Field: "messages",
			Message: fmt.Sprintf("data format error: at most %d messages at once", MaxBatch)}
	}
	level, holder, err := in.cfg.Levels.Lowest(ctx)
	if err != nil {
		return unavailable(err)
	}
	if level < database.FeatureLevel {
		return unavailable(fmt.Errorf("%s runs an older program, which knows no doors: update it", holder))
	}
	return nil
}

// prepare checks a message and makes its row.
func (in *Intake) prepare(ctx context.Context, e *entry, m Message) error {
	if why := m.check(in.cfg.Now()); why != nil {
		return why
	}
	ways, why := in.cfg.Rules.Ways(&m)
	if why != nil {
		return why
	}
	for _, way := range ways {
		call := way.Call
		if m.Call != "" {
			call = m.Call
		}
		if err := in.cfg.Registry.Allow(e.session, call, way.AppID, m.Template); err != nil {
			return err
		}
	}
	if why := in.cfg.Rules.Check(&m, ways[0].AppID); why != nil {
		return why
	}
	secret, err := in.key.secret(ctx)
	if err != nil {
		return unavailable(err)
	}
	e.fill(&m, ways[0].AppID, secret)
	return nil
}

func (in *Intake) count(s applications.Session, results []Result) {
	if s.Application == nil {
		return
	}
	for _, r := range results {
		outcome := "accepted"
		switch {
		case errors.Is(r.Err, ErrUnavailable):
			outcome = "unavailable"
		case errors.Is(r.Err, ErrUnknown):
			outcome = "unknown"
		case r.Err != nil:
			outcome = "refused"
		case r.Repeated:
			outcome = "repeated"
		}
		in.messages.WithLabelValues(s.Application.Name, outcome).Inc()
	}
}

// unavailable says that nothing was inserted, and why, for our log.
func unavailable(err error) error { return fmt.Errorf("%w: %w", ErrUnavailable, err) }
