package sender

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

// Reasons of the sender's own; the other reasons of a send are wechat's. reasonNoFollower ends a request whose
// recipient did not appear in time.
const (
	reasonNoFollower = "no_follower"
	// reasonBlocked ends a request to somebody of whom a receipt said that he blocks the account's messages.
	reasonBlocked = "blocked_by_user"
)

// policyOf returns the policy of an error of the API; "" for none.
func policyOf(err error) wechat.Policy {
	if err == nil {
		return ""
	}
	if we, ok := errors.AsType[*wechat.Error](err); ok {
		return we.Policy
	}
	// Not from the client: whether the message went out is not known.
	return wechat.PolicyUncertain
}

// outcome turns WeChat's answer to one POST into the row's result, and pauses the account or puts the
// recipient in doubt where the answer concerns more than this message.
func (w *worker) outcome(j job, msgid int64, err error) result {
	base := result{id: j.row.ID, token: j.row.token, openid: j.message.ToUser, doubtful: j.row.UncertainAge.Valid,
		warning: j.warning}
	if err == nil {
		w.governor.answered(w.svc.cfg.Now(), false)
		w.reportSuccess()
		w.openTemplate(j.message.TemplateID)
		w.library.known(j.message.TemplateID)
		base.status, base.msgid, base.posted = statusSent, msgid, true
		return base
	}
	we, ok := errors.AsType[*wechat.Error](err)
	if !ok {
		we = &wechat.Error{Reason: "internal", Policy: wechat.PolicyUncertain, Message: err.Error(), Uncertain: true}
	}
	base.reason, base.errmsg = string(we.Reason), we.Message
	base.errcode = boundCode(we.Code)
	if base.errmsg == "" {
		base.errmsg = we.Error()
	}
	w.governor.answered(w.svc.cfg.Now(), we.Reason == reasonBusy)
	if we.Uncertain || we.Policy == wechat.PolicyUncertain {
		base.posted = true
		return w.uncertain(j, base)
	}
	if we.Endpoint != "" && we.Endpoint != wechat.EndpointSendTemplate && we.Policy == wechat.PolicyRetry {
		// There is no token at the moment: the message has not been tried.
		return w.pauseAccount(j, base, we, pauseReach)
	}
	w.heardFrom(j, we)
	switch we.Policy {
	case wechat.PolicyRetry:
		if we.Reason == wechat.ReasonInvalidTemplate {
			w.library.distrust(j.message.TemplateID)
			return w.retry(j, base, retryTemplate)
		}
		if we.Code != 0 {
			return w.retry(j, base, retryFirst)
		}
		// WeChat cannot be reached, and nothing has left this machine: not the message's fault.
		return w.pauseAccount(j, base, we, pauseReach)
	case wechat.PolicyToken:
		return w.pauseAccount(j, base, we, pauseToken)
	case wechat.PolicyConfig:
		return w.pauseAccount(j, base, we, pauseConfig)
	case wechat.PolicyQuotaDay:
		return w.pauseAccount(j, base, we, pauseDay)
	case wechat.PolicyQuotaMinute:
		w.governor.halve(w.svc.cfg.Now())
		return w.pauseAccount(j, base, we, pauseMinute)
	case wechat.PolicyTemplate:
		return w.shutTemplate(j, base, we)
	case wechat.PolicyRecipientLater:
		return w.retry(j, base, retryRecipient)
	case wechat.PolicyRecipient:
		return w.recipientFault(j, base, we)
	}
	if we.Reason == wechat.ReasonInvalidKeyword {
		w.library.distrust(j.message.TemplateID)
		w.library.known(j.message.TemplateID)
	}
	base.status, base.openid = statusFailed, ""
	return base
}

// heardFrom ends the pause where WeChat refused a message for a reason of its own: the account works. One that
// concerns the person alone tells that its template does, too.
func (w *worker) heardFrom(j job, we *wechat.Error) {
	if we.Endpoint != wechat.EndpointSendTemplate || we.Code == 0 {
		return
	}
	switch we.Policy {
	case wechat.PolicyRecipient, wechat.PolicyRecipientLater:
		w.reportSuccess()
		w.openTemplate(j.message.TemplateID)
	case wechat.PolicyRequest:
		w.reportSuccess()
	}
}

// reasonBusy is wechat's reason of -1 and its like.
const reasonBusy = wechat.ReasonSystemError

// boundCode keeps an odd answer from making a row unwritable.
func boundCode(code int) int { return min(max(code, math.MinInt32), math.MaxInt32) }

// How long the first repetition of a transient error waits; it doubles each time, to at most an hour.
const (
	retryFirst     = 5 * time.Second
	retryDoubt     = 20 * time.Second // the database could not note a doubt
	retryTemplate  = 2 * time.Minute  // 40037 has been seen for a valid template for eleven minutes
	retryRecipient = 30 * time.Minute // 43117: this person got too many messages for now
	retryLongest   = time.Hour
)

// retry makes the row due again after a growing pause, until its attempts are used up.
func (w *worker) retry(j job, r result, first time.Duration) result {
	attempt := j.row.Attempts + 1
	r.openid = ""
	if attempt >= w.account.MaxAttempts {
		r.status = statusFailed
		return r
	}
	r.status, r.delay = statusPending, backoff(attempt, first, retryLongest)
	return r
}

// uncertain repeats the message while WeChat would drop a second one, and then calls the outcome unknown.
func (w *worker) uncertain(j job, r result) result {
	r.uncertain = true // openid stays: a receipt for it may tell what became of the message
	age := time.Duration(j.row.UncertainAge.Int64) * time.Microsecond
	delay := backoff(j.row.Attempts+1, retryFirst, 2*time.Minute)
	if age+delay >= w.account.ResendWindow || j.row.Attempts+1 >= w.account.MaxAttempts {
		r.status = statusUnknown
		return r
	}
	r.status, r.delay = statusPending, delay
	return r
}

// recipientFault handles an answer about the person. That he does not follow is first asked about, since the
// map said otherwise; an openid that only the producer knows and WeChat does not is simply wrong.
func (w *worker) recipientFault(j job, r result, we *wechat.Error) result {
	doubt := map[wechat.Reason]bridge.Doubt{
		wechat.ReasonNotFollower:   bridge.DoubtSendRefused,
		wechat.ReasonInvalidOpenID: bridge.DoubtSendInvalid,
	}[we.Reason]
	if j.unlisted && doubt == bridge.DoubtSendInvalid {
		doubt = ""
	}
	if doubt == "" || j.row.Attempts+1 >= w.account.MaxAttempts {
		r.status, r.openid = statusFailed, ""
		return r
	}
	err := database.Detached(context.Background(), func(ctx context.Context) error {
		return w.svc.cfg.People.Ask(ctx, w.account.AppID, []string{r.openid}, doubt)
	})
	if err != nil {
		// Without the doubt the row would be released, sent and refused again: a slow retry instead.
		w.log.Error("noting a doubtful follower", "request", j.row.ID, "err", err)
		return w.retry(j, r, retryDoubt)
	}
	r.status, r.openid, r.delay = statusWaiting, "", w.account.Wait
	return r
}

// unreachable is the result of a row whose recipient the map cannot reach now: it waits for him.
func (w *worker) unreachable(row request, standing bridge.Standing) result {
	if standing == bridge.Blocked {
		return row.end(statusFailed, reasonBlocked, explain(standing))
	}
	r := row.end(statusWaiting, string(standing), explain(standing))
	r.delay = w.account.Wait
	return r
}

// explain says to a producer why his row waits.
func explain(standing bridge.Standing) string {
	switch standing {
	case bridge.UnknownUser:
		return "nobody with this mini_openid is in mini_user yet: INSERT what wx.login told you, with the unionid"
	case bridge.NoUnionID:
		return "this mini-program user is known without a unionid: is the mini program bound to the Open Platform account?"
	case bridge.NotFollowing:
		return "this person does not follow the official account, as far as the map knows"
	case bridge.InDoubt:
		return "WeChat refused the last message to this person; he is being asked about"
	case bridge.Blocked:
		return "a receipt said that this person blocks the account's messages; requests to him fail at once for a while (send.blocked_for)"
	case bridge.Ambiguous:
		return "two followers of the account carry this unionid, so neither is certain to be this person: see v_identity"
	}
	return ""
}

// backoff is first doubled with every attempt after the first, up to most, give or take a tenth.
func backoff(attempt int, first, most time.Duration) time.Duration {
	d := most
	if shift := attempt - 1; shift < 20 && first<<shift < most {
		d = first << shift
	}
	return d - d/10 + rand.N(d/5+1)
}
