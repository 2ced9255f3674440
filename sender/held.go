package sender

import (
	"context"
	"slices"
	"time"

	"github.com/unionbridge/unionbridge/sender/queue"
)

// heldTime is how long a round of maintenance looks through the rows that a pause holds back; the
// next round goes on where it ended.
const heldTime = time.Second

// held walks through the due rows that are not claimed: their account or template is paused, or the
// day's messages are used up.
type held struct {
	at   map[queue.Lane]queue.Request // where the walk through a lane stands
	turn int                          // counts the lanes, so that a round goes on where one ended
}

// endHeld ends those of the rows that a pause holds back whose time is over: who waits for their
// outcome need not wait for the end of the pause.
func (m *maintenance) endHeld(ctx context.Context, lanes []queue.Lane) error {
	begin := m.Now()
	inTime := func() bool { return m.Now().Sub(begin).Abs() < heldTime }
	lanes = slices.Clone(lanes)
	slices.SortFunc(lanes, queue.Lane.Compare)
	for range lanes {
		l := lanes[m.held.turn%len(lanes)]
		m.held.turn++
		for _, a := range m.accounts {
			if !a.holds(l) {
				continue
			}
			if err := m.held.walk(ctx, a.account, l, inTime); err != nil || !inTime() {
				return err
			}
		}
	}
	return nil
}

// holds reports whether a lane has due rows of this account, which sends, and none may be claimed.
func (a *account) holds(l queue.Lane) bool {
	return a.owner.Load() && l.Due && l.Status == queue.Pending && a.owns(l) &&
		validPriority(l.Priority) && a.claimable(l, 1) == 0
}

func (h *held) walk(
	ctx context.Context, a *account, l queue.Lane, inTime func() bool,
) error {
	for {
		rows, err := a.queue.DueAfter(ctx, l, h.at[l])
		if err == nil {
			err = a.endOverdue(ctx, rows)
		}
		if err != nil {
			return err
		}
		if len(rows) < queue.PageSize {
			delete(h.at, l)
			return nil
		}
		if h.at[l] = rows[len(rows)-1]; !inTime() {
			return nil
		}
	}
}

// endOverdue ends those of the rows that are withdrawn, expired or too long in doubt.
func (a *account) endOverdue(ctx context.Context, rows []queue.Request) error {
	var withdrawn, over []int64
	known := a.settler.Parked()
	for _, r := range rows {
		switch {
		case slices.Contains(known, r.ID): // its outcome is known, and written as soon as it can be
		case r.Cancel:
			withdrawn = append(withdrawn, r.ID)
		case overdue(r, a.resendWindow(r.Template)) != nil:
			over = append(over, r.ID)
		}
	}
	cancel := queue.CancelOrder{From: queue.Pending, AppID: a.AppID, IDs: withdrawn}
	if err := a.queue.Cancel(ctx, cancel); err != nil {
		return err
	}
	return a.queue.EndOverdue(ctx, a.AppID, over)
}
