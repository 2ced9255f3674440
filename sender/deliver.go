package sender

import (
	"context"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// settlement is what the settler is to write: the result of a row that was not delivered, or a job
// with its outcome, of which the channel is to learn first.
type settlement struct {
	job     *job // nil: not delivered
	outcome channel.Outcome
	result  queue.Result
}

// allowed reports whether a POST may begin now.
func (a *account) allowed(ctx context.Context, lease *database.Lease, j *job) bool {
	now := a.Now()
	return ctx.Err() == nil && lease.Valid() && j.within(now, j.row.InDoubtFor.Valid) &&
		j.permit.Allowed()
}

// deliver makes one attempt. Nothing is sent once ctx has ended, the account is paused, the lease
// is in doubt or the claim is about to run out: such a row is released and its attempt not counted.
// A POST that has begun is not interrupted.
func (a *account) deliver(ctx context.Context, lease *database.Lease, j *job) settlement {
	if !a.allowed(ctx, lease, j) {
		return a.release(j)
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
	return settlement{job: j, outcome: o}
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
func (a *account) release(j *job) settlement {
	j.permit.Release()
	now := a.Now()
	tooOld := j.row.InDoubtFor.Valid && passed(j.repeat, now)
	switch j.row.Expired = passed(j.expires, now); {
	case tooOld:
		return settlement{result: tooOldToRepeat(j.row)}
	case j.row.Expired:
		return settlement{result: *overdue(j.row, a.resendWindow())}
	}
	return settlement{result: j.row.Release()}
}
