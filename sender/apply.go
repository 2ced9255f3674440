package sender

import (
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/queue"
)

const (
	// initialDoubtRetry is how soon a message is repeated at first whose outcome is in doubt.
	initialDoubtRetry = 5 * time.Second
	maxDoubtRetry     = 2 * time.Minute
	// unlearnedRetry is the same where the channel could not store what an answer said of its
	// recipient.
	unlearnedRetry = 20 * time.Second
	maxRetry       = time.Hour
)

// apply turns the outcome of a delivery into the row's result.
func (a *account) apply(j *job, o channel.Outcome) queue.Result {
	r := queue.Result{
		ID: j.row.ID, Token: j.row.Token, EarlierInDoubt: j.row.InDoubtFor.Valid,
		Note:  queue.Note{Reason: o.Reason, ErrCode: o.Code, ErrMsg: o.Message, Warning: j.draft.Warning()},
		MsgID: o.MsgID, Channel: string(a.channel.Name()),
	}
	if r.ErrMsg == "" && o.Err != nil {
		r.ErrMsg = o.Err.Error()
	}
	attempt := j.row.Attempts + 1
	switch o.Verdict {
	case channel.Sent:
		r.Status, r.OpenID = queue.Sent, j.address.OpenID
	case channel.InDoubt:
		// A receipt to this openid may tell what became of the message.
		r.InDoubt, r.OpenID = true, j.address.OpenID
		r.Status, r.Delay = queue.Pending, backoff(attempt, initialDoubtRetry, maxDoubtRetry)
		// Later than the window, WeChat would no longer drop a second message.
		if passed(j.repeat, a.Now().Add(r.Delay)) || a.lastAttempt(j) {
			r.Status = queue.Unknown
		}
	case channel.PauseAccount, channel.PauseTemplate:
		// Whatever is wrong would have met any other message too: the attempt is not counted.
		back := j.row.Release()
		back.Reason, back.ErrCode, back.ErrMsg = o.Reason, o.Code, r.ErrMsg
		return back
	case channel.Retry:
		r.Status, r.Delay = queue.Pending, backoff(attempt, o.After, maxRetry)
		if a.lastAttempt(j) {
			r.Status = queue.Failed
		}
	case channel.Unreachable:
		a.wait(&r, j.address)
	default:
		r.Status = queue.Failed
	}
	return r
}

// wait makes a row wait until the map learns something about its recipient.
func (a *account) wait(r *queue.Result, to channel.Address) {
	waits := a.releaser.WaitsFor(to)
	r.Status, r.Delay, r.Waits = queue.Waiting, a.Wait, &waits
}

// unreachable is the result of a row whose recipient the map cannot reach now: it waits for them.
func (a *account) unreachable(row queue.Request, to channel.Address) queue.Result {
	standing := to.Reachability
	r := row.End(queue.Failed, string(standing), explain(standing))
	switch {
	case standing == bridge.Blocked:
		r.Reason = "blocked_by_user"
	case a.channel.Traits().Waits:
		a.wait(&r, to)
	}
	return r
}

// explain says to a producer why their row waits.
func explain(standing bridge.Reachability) string {
	switch standing {
	case bridge.UnknownUser:
		return "nobody with this id is in mini_user yet: INSERT what wx.login told you, " +
			"with the unionid"
	case bridge.NoUnionID:
		return "this mini-program user is known without a unionid: is the mini program bound to the " +
			"Open Platform account?"
	case bridge.NotFollowing:
		return "this person does not follow the official account, as far as the map knows"
	case bridge.InDoubt:
		return "WeChat refused the last message to this person; their follower record is being checked"
	case bridge.Blocked:
		return "a receipt said that this person blocks the account's messages; requests to them fail " +
			"at once for a while (send.blocked_for)"
	case channel.NoGrant:
		return "this person has not accepted the template, or not often enough: it goes when they accept it"
	case bridge.Refused:
		return "this person refused the message, and has done nothing since that lets it go"
	case bridge.Ambiguous:
		return "two openids at this account carry this unionid, so neither is certain to be this " +
			"person: see v_identity"
	}
	return ""
}
