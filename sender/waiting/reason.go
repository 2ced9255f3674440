package waiting

import (
	"context"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/sender/move"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// restatements are rows that wait for something else than they say.
type restatements map[restatement][]int64

// restatement is in whose queue rows stand, why they say that they wait, and why they do.
type restatement struct {
	at  string
	say bridge.Reachability
	now bridge.Reachability
}

// add adds a row whose recipient was not known and is by now: they may have to follow first, or to
// accept the template. Other reasons stay: WeChat may have given them.
func (s restatements) add(row queue.Request, look move.Look) {
	say, now := bridge.Reachability(row.Reason.String), look.Own.Reachability
	switch {
	case say != bridge.UnknownUser && say != bridge.NoUnionID, now == say, now == bridge.Reachable:
		return
	case row.FallbackFrom.Valid && look.Address.Reachability == say: // the other account said so
		return
	}
	what := restatement{bridge.ID(row.AppID.String), say, now}
	s[what] = append(s[what], row.ID)
}

// restate writes why rows wait. The end of their wait keeps that.
func (r *Releaser) restate(ctx context.Context, changed restatements) error {
	for what, ids := range changed {
		err := r.cfg.Queue.Restate(ctx, queue.Restatement{
			AppID: what.at, From: string(what.say), Reason: string(what.now),
			Message: r.cfg.Explain(what.now), IDs: ids,
		})
		if err != nil {
			return err
		}
	}
	return nil
}
