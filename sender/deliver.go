package sender

import (
	"context"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// allowed reports whether a POST may begin now.
func (a *account) allowed(ctx context.Context, lease *database.Lease, j *job) bool {
	now := a.Now()
	return ctx.Err() == nil && lease.Valid() && j.within(now, j.row.InDoubtFor.Valid) &&
		j.permit.Allowed()
}

// deliver makes one attempt. Nothing is sent once ctx has ended, the account is paused, the lease
// is in doubt or the claim is about to run out: such a row is released and its attempt not counted.
// A POST that has begun is not interrupted.
func (a *account) deliver(ctx context.Context, lease *database.Lease, j *job) queue.Result {
	if !a.allowed(ctx, lease, j) {
		return a.release(j)
	}
	if a.attempts != nil {
		if !a.open.Begin(ctx, j.row.ID) {
			return a.release(j)
		}
		if held := a.reserve(ctx, j); held != nil {
			return *held
		}
		if !a.allowed(ctx, lease, j) { // that took its time
			return a.release(j)
		}
	}
	o := a.post(ctx, j)
	// The client renews a token that died; the message was refused for certain, so it goes again.
	if o.Pause == channel.PauseToken && a.allowed(ctx, lease, j) {
		o = a.post(ctx, j)
	}
	j.permit.Done(o)
	if o.Verdict == channel.Unreachable && a.lastAttempt(j) {
		o.Verdict = channel.Rejected // the row does not wait, so nobody has to find out
	}
	o = a.learn(ctx, j, o)
	r := a.apply(j, o)
	if a.attempts != nil {
		r.With = &channel.Delivery{Draft: j.draft, Address: j.address, Outcome: o}
		r.ClaimedAt = j.claimedAt
	}
	if o.Refused {
		r = a.passOn(ctx, refusal{row: j.row, result: r, address: j.address, certain: true, refused: true})
	}
	return r
}

// reserve writes the attempt down, and returns the result of a job that must not be posted after
// all; nil: it may be.
func (a *account) reserve(ctx context.Context, j *job) *queue.Result {
	answer := a.attempts.Reserve(ctx, channel.Reservation{
		RequestID: j.row.ID, Lease: j.row.Token, Draft: j.draft, Address: j.address,
	})
	switch {
	case answer.Written:
		j.claimedAt = answer.ClaimedAt
		return nil
	case answer.Err != nil:
		a.log.Error("writing an attempt down; the request is not posted, and claimed again",
			"request", j.row.ID, "err", answer.Err)
	case answer.Address.Reachability != j.address.Reachability:
		j.permit.Release()
		return new(a.passOn(ctx, a.unreached(j.row, answer.Address)))
	}
	return new(a.release(j))
}

// learn tells the channel what became of a message. What it stores may have to wait for somebody's
// lock, so it is done here, where it delays no other message's outcome.
func (a *account) learn(ctx context.Context, j *job, o channel.Outcome) channel.Outcome {
	done := []channel.Delivery{{Draft: j.draft, Address: j.address, Outcome: o}}
	err := database.Detached(ctx, func(ctx context.Context) error { return a.channel.Learn(ctx, done) })
	if err != nil {
		a.log.Error("storing what WeChat said of a recipient", "request", j.row.ID, "err", err)
		if o.Verdict == channel.Unreachable {
			// Waiting, the row would be released at once, sent and refused again.
			o.Verdict, o.After = channel.Retry, unlearnedRetry
		}
	}
	return o
}

// lastAttempt reports whether a transient error would be final.
func (a *account) lastAttempt(j *job) bool { return j.row.Attempts+1 >= a.MaxAttempts }

func (a *account) post(ctx context.Context, j *job) channel.Outcome {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.SendTimeout)
	defer cancel()
	begin := a.Now()
	o := a.channel.Deliver(ctx, j.draft, j.address)
	a.seconds.Observe(a.Now().Sub(begin).Seconds())
	return o
}

// release gives back a job that was claimed to be sent and was not, or ends its row.
func (a *account) release(j *job) queue.Result {
	j.permit.Release()
	now := a.Now()
	tooOld := j.row.InDoubtFor.Valid && passed(j.repeat, now)
	switch j.row.Expired = passed(j.expires, now); {
	case tooOld:
		return tooOldToRepeat(j.row)
	case j.row.Expired:
		return *overdue(j.row, a.resendWindow(j.row.Template))
	}
	return j.row.Release()
}

// written counts results that have been written, and sees to what follows from them.
func (a *account) written(results []queue.Result) {
	posted := 0
	var waiting []int64
	for _, r := range results {
		if r.Status == queue.Waiting {
			waiting = append(waiting, r.ID)
		}
		moved := r.Move != nil && r.Move.To != a.AppID
		if moved {
			a.metrics.moved(a.AppID, r.Move.To, r.Move.Why, 1)
		}
		// A row given back is no outcome, and one that goes on elsewhere has none yet.
		if r.Status != queue.Pending || !r.Refund && !moved {
			a.metrics.outcomes.WithLabelValues(a.AppID, string(r.Final()), r.Reason).Inc()
		}
		if r.Posted() {
			posted++
		}
		if r.Status == queue.Pending && (r.InDoubt || r.EarlierInDoubt) {
			a.redelivery.add(r.ID, a.Now().Add(r.Delay))
		}
	}
	a.releaser.Added(waiting)
	a.throttle.CountSent(posted)
}
