package wechat

import "errors"

// Reason is why a call failed: a metric label, a column and a word in texts. snake_case, stable.
type Reason string

// The reasons that callers act on. All others come from the errcode table and need no name here:
// they are shown and stored, and their [Policy] says what to do.
const (
	ReasonNotFollower     Reason = "not_follower"          // 43004: user/info decides
	ReasonInvalidOpenID   Reason = "invalid_openid"        // 40003: user/info decides
	ReasonInvalidCursor   Reason = "invalid_cursor"        // 40003 of a cursor: step back
	ReasonRefused         Reason = "refused_by_user"       // 43101: switched off; final
	ReasonNoGrant         Reason = "no_grant"              // 43101 of a subscribe message
	ReasonInvalidTemplate Reason = "invalid_template"      // 40037: not in the library
	ReasonInvalidKeyword  Reason = "invalid_keyword_value" // 47003: against its type's rule
	ReasonSystemError     Reason = "system_error"          // -1: busy; in bursts, overrun
	ReasonNoPermission    Reason = "no_permission"         // 48001, 76022: of this call
	ReasonUnknownCode     Reason = "unknown_code"          // an errcode not in the table

	ReasonUnreachable    Reason = "unreachable"     // no connection, nothing was written
	ReasonTimeout        Reason = "timeout"         // no complete answer in time
	ReasonConnectionLost Reason = "connection_lost" // the connection ended before the answer did
	ReasonCancelled      Reason = "cancelled"       // the caller's context ended
	ReasonServerError    Reason = "server_error"    // HTTP 5xx
	ReasonBadAnswer      Reason = "bad_answer"      // HTTP 200; empty, cut or not WeChat's

	// ReasonTokenRefused: WeChat refuses its current token, and no forced refresh is allowed yet.
	ReasonTokenRefused Reason = "token_refused"
	// ReasonTokenSupply: the company's token server or command hands out a token that WeChat
	// refuses, or does not work.
	ReasonTokenSupply Reason = "token_supply"
	// ReasonTokenFight: WeChat refused the token, and lately one fresh token after the other:
	// another program kills them.
	ReasonTokenFight Reason = "token_fight"
)

// OfCredentials reports whether a failure of this reason is over when WeChat takes the account's
// token: it came from the secret, the address, or the token, and not from what the account may do.
func (r Reason) OfCredentials() bool {
	switch r {
	case "wrong_secret", "secret_frozen", "invalid_appid", "ip_not_allowed", "ip_awaits_administrator",
		"ip_refused_by_administrator", "invalid_token", "token_missing", "token_expired",
		ReasonTokenRefused, ReasonTokenSupply, ReasonTokenFight:
		return true
	}
	return false
}

// Transient reports whether a call may succeed later without anybody's doing.
func Transient(err error) bool {
	we, ok := errors.AsType[*Error](err)
	return ok && we.Policy == PolicyRetry
}

// Policy is what to do about a failure.
type Policy string

// The policies.
const (
	PolicyRetry          Policy = "retry"           // transient: make the same call again later
	PolicyQuotaDay       Policy = "quota_day"       // nothing of this kind before the quota resets
	PolicyQuotaMinute    Policy = "quota_minute"    // nothing of this kind before the next minute
	PolicyRecipient      Policy = "recipient"       // permanent until the person changes something
	PolicyRecipientLater Policy = "recipient_later" // too much for this person now
	PolicyRequest        Policy = "request"         // permanent, the request is wrong

	// PolicyToken: the access token was refused and is being renewed; the call may be made again at
	// once, a bounded number of times. It had no effect.
	PolicyToken Policy = "token"
	// PolicyConfig: the account, its permissions or its settings are wrong, and every call will
	// fail alike until a person acts. Stop, log it once, and use up no attempts.
	PolicyConfig Policy = "config"
	// PolicyTemplate: one template of the account is banned, disabled or of the wrong kind, and all
	// its messages will fail alike until a person acts; the account's others go on.
	PolicyTemplate Policy = "template"
	// PolicyUncertain: a send that may have been accepted. Repeat it only under the same
	// client_msg_id and within WeChat's 10 minutes.
	PolicyUncertain Policy = "uncertain"
)

// verdict is what the table says about an errcode, or this package about a failure without one.
type verdict struct {
	reason Reason
	policy Policy
}
