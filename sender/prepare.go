package sender

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/queue"
	"github.com/unionbridge/unionbridge/sender/throttle"
)

// job is one claimed row on its way to WeChat.
type job struct {
	row      queue.Request
	draft    channel.Draft
	address  channel.Address
	permit   *throttle.Permit
	expires  time.Time // zero: never
	deadline time.Time // after this no POST may begin: the row is about to fall due again
}

// late reports whether the row's expires_at has passed since it was claimed.
func (j *job) late(now time.Time) bool { return !j.expires.IsZero() && !now.Before(j.expires) }

// prepare turns a row that was claimed at begin into a job and its target. A row that cannot be
// sent, or must not be any more, gets a result instead.
func (a *account) prepare(
	ctx context.Context, row queue.Request, begin time.Time,
) (*job, channel.Target, *queue.Result) {
	if ended := overdue(row, a.resendWindow()); ended != nil {
		return nil, channel.Target{}, ended
	}
	draft, target, rejection := a.draft(ctx, row)
	if rejection != nil {
		return nil, channel.Target{}, reject(row, *rejection)
	}
	const margin = 5 * time.Second
	j := &job{row: row, draft: draft, deadline: begin.Add(queue.Visibility - a.SendTimeout - margin)}
	if row.ExpiresIn.Valid {
		j.expires = begin.Add(time.Duration(row.ExpiresIn.Int64) * time.Microsecond)
	}
	return j, target, nil
}

func (a *account) draft(
	ctx context.Context, row queue.Request,
) (_ channel.Draft, target channel.Target, rejection *channel.Rejection) {
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
		Template: row.Template, TemplateID: target.TemplateID, Data: row.Data.String,
		URL: row.URL.String, MiniAppID: row.MiniAppID.String, MiniPath: row.MiniPath.String,
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

// overdue ends rows whose time has passed: expired ones, and those that have been in doubt for so
// long that WeChat would deliver the repetition as a second message.
func overdue(row queue.Request, resendWindow time.Duration) *queue.Result {
	inDoubt, age := row.InDoubtFor.Valid, time.Duration(row.InDoubtFor.Int64)*time.Microsecond
	var result queue.Result
	switch {
	case inDoubt && (age > resendWindow || age < -clockSlack):
		// It lies in the future where the database's clock was set back: its age is not known.
		result = row.End(queue.Unknown, "outcome_unknown", "an attempt was made whose outcome is not "+
			"known, and it is too old to be repeated without the risk of a second message")
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

// clientMsgID is the same for every attempt of a request and differs between databases. Its length
// is at most 12 + 1 + 13 bytes; WeChat's limit is not documented, 32 is safe.
func (s *shared) clientMsgID(id int64) string {
	return s.installation + "-" + strconv.FormatInt(id, 36)
}

// recipient is the person a row names.
func (s *shared) recipient(row queue.Request) (bridge.Recipient, *channel.Rejection) {
	return s.MiniAppIDs.Recipient(bridge.Recipient{
		UnionID: row.UnionID.String, OpenID: row.OpenID.String,
		MiniAppID: row.MiniAppID.String, MiniOpenID: row.MiniOpenID.String,
	})
}
