package sender

import (
	"context"
	"slices"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/move"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// refusal is a claimed row that its account cannot deliver.
type refusal struct {
	row     queue.Request
	result  queue.Result    // what becomes of it without another account
	address channel.Address // what the account's channel knows of the person
	certain bool            // they cannot be reached from here for certain
	refused bool            // WeChat said so, and not the map
}

// inDoubt reports whether an attempt may have delivered the message: then it goes nowhere else.
func (r refusal) inDoubt() bool {
	return r.row.InDoubtFor.Valid || r.row.Attempted || r.result.InDoubt || r.result.EarlierInDoubt
}

// unreached is the refusal of a row whose recipient the account's channel does not find.
func (a *account) unreached(row queue.Request, to channel.Address) refusal {
	return refusal{
		row: row, result: a.unreachable(row, to), address: to, certain: move.Certain(to.Reachability),
		refused: to.Reachability == bridge.Blocked,
	}
}

// elsewhere returns the results of rows that the account cannot deliver: the other account of their
// route takes them if it can.
func (a *account) elsewhere(ctx context.Context, refusals []refusal) ([]queue.Result, error) {
	results := make([]queue.Result, len(refusals))
	var rows []queue.Request
	var which []int
	for i, r := range refusals {
		results[i] = r.result
		open := r.result.Status == queue.Waiting || r.result.Status == queue.Failed
		if open && !r.inDoubt() {
			rows, which = append(rows, r.row), append(which, i)
		}
	}
	answers, err := a.mover.Ask(ctx, rows)
	if err != nil {
		return nil, err
	}
	for n, i := range which {
		if answers[n].Other == "" {
			continue
		}
		older, err := a.mover.Older(ctx)
		if err != nil {
			return nil, err
		}
		results[i] = a.decide(refusals[i], answers[n], older)
	}
	return results, nil
}

// decide returns the result of a row by what its other account has answered. older: why it must not
// be moved yet.
func (a *account) decide(r refusal, answer move.Answer, older *channel.Rejection) queue.Result {
	moved := answer.Other == answer.First
	forward := !moved && r.certain && answer.Reachable
	switch {
	case older != nil && (moved || forward):
		held := r.result
		held.Status, held.Delay, held.Waits = queue.Pending, older.After, nil
		held.Reason, held.ErrMsg = older.Reason, older.Message
		return held
	case moved:
		return a.back(r, answer)
	case forward:
		return a.forward(r, answer)
	case r.result.Status == queue.Waiting:
		waits := r.result
		waits.Move = a.moveTo(r, a.AppID)
		waits.Waits = a.bothWaits(r, answer)
		if !r.row.FallbackFrom.Valid {
			waits.Move.Refused = queue.NotRefused // a recheck may find that they follow
		}
		return waits
	}
	return r.result
}

// moveTo is the move of a row from this account.
func (a *account) moveTo(r refusal, to string) *queue.Move {
	m := &queue.Move{At: a.AppID, To: to, Why: r.result.Reason, Origin: queue.Origin{
		AppID: r.row.FallbackFrom.String, Reason: r.row.FallbackReason.String,
		ErrCode: int(r.row.FallbackErrCode.Int64),
	}}
	if r.refused {
		m.Refused = queue.RefusedByFirst
	}
	return m
}

// forward moves a row from the first account of its route to the other one.
func (a *account) forward(r refusal, answer move.Answer) queue.Result {
	result := r.result
	result.Status, result.Waits, result.Delay = queue.Pending, nil, 0
	result.Move = a.moveTo(r, answer.Other)
	if !r.row.FallbackFrom.Valid {
		result.Move.Origin = queue.Origin{
			AppID: a.AppID, Reason: result.Reason, ErrCode: result.ErrCode,
		}
	}
	result.Note = queue.Note{}
	return result
}

// back returns a row to the first account of its route, both having been tried. It waits there for
// whichever can reach the person again, or fails where neither ever will.
func (a *account) back(r refusal, answer move.Answer) queue.Result {
	result := r.result
	result.Move = a.moveTo(r, answer.First)
	if r.refused {
		result.Move.Refused = queue.RefusedByOther
	}
	switch first := answer.Address.Reachability; {
	case result.Status == queue.Waiting:
		result.Waits = a.bothWaits(r, answer)
	case first == "" || first == bridge.Blocked || first == bridge.Refused:
		return result // it has failed
	default:
		waits := a.releaser.WaitsFor(answer.Address)
		result.Status, result.Waits = queue.Waiting, &waits
	}
	for _, other := range a.all() {
		if other.AppID == answer.First {
			result.Delay = other.Wait
		}
	}
	return result
}

// bothWaits is what may release a row at either account.
func (a *account) bothWaits(r refusal, answer move.Answer) *queue.Waits {
	waits := slices.Concat(a.releaser.WaitsFor(r.address), a.releaser.WaitsFor(answer.Address))
	slices.SortFunc(waits, queue.Wait.Compare)
	waits = slices.Compact(waits)
	return &waits
}

// passOn is elsewhere for one row that has been posted, or was about to be.
func (a *account) passOn(ctx context.Context, r refusal) queue.Result {
	results, err := a.elsewhere(ctx, []refusal{r})
	if err != nil {
		a.log.Error("asking the other account of a request's route; it is tried again here",
			"request", r.row.ID, "err", err)
		again := r.result
		again.Status, again.Delay, again.Waits = queue.Pending, unlearnedRetry, nil
		return again
	}
	return results[0]
}

// passAllOn settles rows of a claim that the account cannot deliver. After an error they are
// released.
func (c *claimer) passAllOn(ctx context.Context, refusals []refusal) error {
	if len(refusals) == 0 {
		return nil
	}
	results, err := c.elsewhere(ctx, refusals)
	if err != nil {
		results = nil
		for _, r := range refusals {
			results = append(results, r.row.Release())
		}
	}
	for _, r := range results {
		c.results <- r
	}
	return err
}
