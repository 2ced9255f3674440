package sender

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/move"
	"github.com/unionbridge/unionbridge/sender/queue"
	"github.com/unionbridge/unionbridge/sender/throttle"
)

// job is one claimed row on its way to WeChat.
type job struct {
	row     queue.Request
	draft   channel.Draft
	address channel.Address
	permit  *throttle.Permit

	claimedAt time.Time // by the database's clock, where an attempt has been written down

	// No POST may begin after any of these. A claimed row may stand in the queue for most of a
	// minute: they are absolute, and are tested directly before the POST.
	limits
}

// limits are the moments after which a job may not be posted.
type limits struct {
	deadline time.Time // of the claim: the row is about to fall due again
	expires  time.Time // the row's expires_at; zero: never
	repeat   time.Time // of an attempt in doubt: WeChat may drop no second message any more
}

// within reports whether a POST may begin now, by the monotonic and by the wall clock: one stands
// still while the machine is suspended, the other may be set. The repetition of an attempt in doubt
// has one more limit.
func (l limits) within(now time.Time, inDoubt bool) bool {
	over := func(limit time.Time) bool { return passed(limit, now) || passed(limit, now.Round(0)) }
	return !over(l.deadline) && !over(l.expires) && (!inDoubt || !over(l.repeat))
}

// passed reports whether a limit, of which zero is none, is over. Where the wall clock alone says
// so, the row is given back: its next claim goes by the database's clock.
func passed(limit, now time.Time) bool { return !limit.IsZero() && !now.Before(limit) }

// prepare turns a row that was claimed at begin into a job and its target. A row that cannot be
// sent, or must not be any more, gets a result instead.
func (a *account) prepare(
	ctx context.Context, row queue.Request, begin time.Time,
) (*job, channel.Target, *queue.Result) {
	if ended := a.ended(row); ended != nil {
		return nil, channel.Target{}, ended
	}
	draft, target, rejection := a.draft(ctx, row)
	if rejection != nil {
		return nil, channel.Target{}, reject(row, *rejection)
	}
	return &job{row: row, draft: draft, limits: a.limits(row, begin)}, target, nil
}

// limits are those of a row whose claim began at a moment: before the database read its figures.
func (a *account) limits(row queue.Request, begin time.Time) limits {
	const margin = 5 * time.Second
	l := limits{deadline: begin.Add(queue.Visibility - a.SendTimeout - margin)}
	if row.ExpiresIn.Valid {
		l.expires = begin.Add(time.Duration(row.ExpiresIn.Int64) * time.Microsecond)
	}
	age := max(0, time.Duration(row.InDoubtFor.Int64)*time.Microsecond)
	l.repeat = begin.Add(a.resendWindow(row.Template) - age)
	return l
}

func (a *account) draft(
	ctx context.Context, row queue.Request,
) (_ channel.Draft, target channel.Target, rejection *channel.Rejection) {
	if _, rejection = a.rules.Plan(move.Way(row)); rejection != nil {
		return nil, target, rejection
	}
	if target.Recipient, rejection = a.recipient(row); rejection != nil {
		return nil, target, rejection
	}
	target.TemplateID, rejection = a.Templates.ID(row.Template, a.AppID)
	if rejection != nil {
		return nil, target, rejection
	}
	if !row.Data.Valid {
		return nil, target, channel.Reject(channel.ReasonBadData, fmt.Sprintf(
			"data has %d bytes, at most %d are allowed", row.DataBytes, queue.MaxData))
	}
	draft, rejection := a.channel.Prepare(ctx, channel.Content{
		Template: bridge.ID(row.Template), TemplateID: target.TemplateID, Data: row.Data.String,
		URL: row.URL.String, MiniPath: row.MiniPath.String,
		MiniAppID: row.MiniAppID.String, JumpAppID: bridge.ID(row.JumpAppID.String),
		Page: row.Page.String, State: bridge.ID(row.Options.State.String),
		Lang:        bridge.ID(row.Lang.String),
		ClientMsgID: a.clientMsgID(row.ID), Redelivery: row.InDoubtFor.Valid,
	})
	return draft, target, rejection
}

// reject is the result of a row that is not to be sent, or not yet.
func reject(row queue.Request, r channel.Rejection) *queue.Result {
	result := row.End(queue.Failed, r.Reason, r.Message)
	if r.After > 0 {
		result.Status, result.Delay = queue.Pending, r.After
	}
	if r.Reason == "" {
		result.Reason = row.Reason.String
	}
	return &result
}

// clockSlack is how far back the database's clock may go without a doubt about ages.
const clockSlack = 5 * time.Second

// ended is the result of a row that must not be posted any more; nil: it may be.
func (a *account) ended(row queue.Request) *queue.Result {
	if row.Attempted && !a.repeats(row.Template) {
		return new(abandoned(row))
	}
	return overdue(row, a.resendWindow(row.Template))
}

// abandoned is the result of a row with an attempt that nobody has settled.
func abandoned(row queue.Request) queue.Result {
	r := row.End(queue.Unknown, "outcome_unknown", "an attempt was made whose outcome is not known, "+
		"and WeChat drops no second message of this kind")
	r.InDoubt = true
	return r
}

// overdue ends rows whose time has passed: expired ones, and those that have been in doubt for so
// long that WeChat would deliver the repetition as a second message.
func overdue(row queue.Request, resendWindow time.Duration) *queue.Result {
	inDoubt, age := row.InDoubtFor.Valid, time.Duration(row.InDoubtFor.Int64)*time.Microsecond
	var result queue.Result
	switch {
	case inDoubt && (age > resendWindow || age < -clockSlack):
		// It lies in the future where the database's clock was set back: its age is not known.
		result = tooOldToRepeat(row)
	case inDoubt && row.Expired:
		result = row.End(queue.Unknown, "outcome_unknown",
			"expires_at has passed after an attempt whose outcome is not known")
	case row.Expired:
		result = row.End(queue.Expired, "expired",
			"expires_at passed before the message could be sent")
	default:
		return nil
	}
	return &result
}

func tooOldToRepeat(row queue.Request) queue.Result {
	return row.End(queue.Unknown, "outcome_unknown", "an attempt was made whose outcome is not "+
		"known, and it is too old to be repeated without the risk of a second message")
}

// clientMsgID is the same for every attempt of a request and differs between databases. Its length
// is at most 12 + 1 + 13 bytes; WeChat's limit is not documented, 32 is safe.
func (s *shared) clientMsgID(id int64) string {
	return s.installation + "-" + strconv.FormatInt(id, 36)
}

// recipient is the person a row names, as this account is asked for them. openid is of the account
// that the row was tried at first, and mini_openid of that one too if it is a mini program, unless
// the row says otherwise.
func (a *account) recipient(row queue.Request) (bridge.Recipient, *channel.Rejection) {
	r, named := bridge.Recipient{
		UnionID: row.UnionID.String, OpenID: row.OpenID.String,
		MiniAppID: row.MiniAppID.String, MiniOpenID: row.MiniOpenID.String,
	}, a.named(row)
	mini := slices.Contains(a.MiniAppIDs, named)
	if bridge.ID(r.MiniAppID) == "" && mini {
		r.MiniAppID = named
	}
	r, rejection := a.MiniAppIDs.Recipient(r)
	switch {
	case r.OpenID == "" || named == a.AppID:
	case mini:
		r = bridge.Recipient{MiniAppID: named, MiniOpenID: r.OpenID}
	default:
		r.OfficialAppID = named
	}
	return r, rejection
}
