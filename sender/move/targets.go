package move

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/queue"
	"github.com/unionbridge/unionbridge/sender/throttle"
)

// targetsAge is how old the answers of LiveTargets may be: a campaign whose rows all move asks for
// each of them.
const targetsAge = time.Second

// LiveTargets knows from the tables which accounts take rows. It is safe for concurrent use.
type LiveTargets struct {
	DB          *sqlx.DB
	NeedsPerson func(reason string) bool // whether a pause ends only when somebody acts; nil: each
	Now         func() time.Time

	mu    sync.Mutex
	read  time.Time
	alive map[string]bool // by the lease's name
	still throttle.Standstill
}

// Open reports whether an instance holds the account's lease, and neither it nor the template waits
// for a person.
func (t *LiveTargets) Open(ctx context.Context, appid, templateID string) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.Now()
	if age := now.Sub(t.read); t.read.IsZero() || age < 0 || age >= targetsAge {
		if err := t.load(ctx); err != nil {
			return false, err
		}
		t.read = now
	}
	return t.alive[queue.LeaseName(appid)] && !t.still.Blocks(appid, templateID), nil
}

func (t *LiveTargets) load(ctx context.Context) error {
	held, err := database.HeldLeases(ctx, t.DB)
	if err != nil {
		return fmt.Errorf("looking who sends: %w", err)
	}
	still, err := throttle.LoadStandstill(ctx, t.DB, t.NeedsPerson)
	if err != nil {
		return err
	}
	t.alive, t.still = make(map[string]bool, len(held)), still
	for _, l := range held {
		t.alive[l.Name] = true
	}
	return nil
}
