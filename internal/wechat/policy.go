package wechat

// Reason is why a call failed: a metric label, a column and a word in texts. snake_case, stable.
type Reason string

// The reasons that callers act on. All others come from the errcode table and need no name here:
// they are shown and stored, and their [Policy] says what to do.
const (
	// ReasonNotFollower: the person does not follow the account (43004). user/info decides.
	ReasonNotFollower Reason = "not_follower"
	// ReasonInvalidOpenID: malformed, of another account, or not known (40003). user/info decides.
	ReasonInvalidOpenID Reason = "invalid_openid"
	// ReasonInvalidCursor: user/get does not know its cursor (40003). Step back to an earlier one.
	ReasonInvalidCursor Reason = "invalid_cursor"
	// ReasonRefused: the person switched this message off (43101). Final.
	ReasonRefused Reason = "refused_by_user"
	// ReasonInvalidTemplate: unknown, deleted, or of another account or library (40037).
	ReasonInvalidTemplate Reason = "invalid_template"
	// ReasonInvalidKeyword: a value breaks the rule of its keyword's type, or is empty (47003).
	ReasonInvalidKeyword Reason = "invalid_keyword_value"
	// ReasonSystemError: WeChat was busy (-1); in bursts, it is overrun.
	ReasonSystemError Reason = "system_error"
	// ReasonUnknownCode: an errcode that the table does not have.
	ReasonUnknownCode Reason = "unknown_code"

	// ReasonUnreachable: no connection, nothing was written.
	ReasonUnreachable Reason = "unreachable"
	// ReasonTimeout: no complete answer in time.
	ReasonTimeout Reason = "timeout"
	// ReasonConnectionLost: the connection ended before the answer did.
	ReasonConnectionLost Reason = "connection_lost"
	// ReasonCancelled: the caller's context ended.
	ReasonCancelled Reason = "cancelled"
	// ReasonServerError: HTTP 5xx.
	ReasonServerError Reason = "server_error"
	// ReasonBadAnswer: HTTP 200 with a body that is empty, cut, too large, or not WeChat's.
	ReasonBadAnswer Reason = "bad_answer"
	// ReasonTokenRefused: WeChat refuses its current token, and no forced refresh is allowed yet.
	ReasonTokenRefused Reason = "token_refused"
	// ReasonTokenSupply: the company's token server or command hands out a token that WeChat
	// refuses, or does not work.
	ReasonTokenSupply Reason = "token_supply"
	// ReasonTokenFight: WeChat refused the token, and lately one fresh token after the other:
	// another program kills them.
	ReasonTokenFight Reason = "token_fight"
)

// Policy is what to do about a failure.
type Policy string

// The policies.
const (
	// PolicyRetry: transient; the same call may be made again after a while.
	PolicyRetry Policy = "retry"
	// PolicyToken: the access token was refused and is being renewed; the call may be made again at
	// once, a bounded number of times. It had no effect.
	PolicyToken Policy = "token"
	// PolicyQuotaDay: nothing of this kind goes before the quota resets.
	PolicyQuotaDay Policy = "quota_day"
	// PolicyQuotaMinute: nothing of this kind goes before the next minute.
	PolicyQuotaMinute Policy = "quota_minute"
	// PolicyRecipient: permanent for this person until something about them changes.
	PolicyRecipient Policy = "recipient"
	// PolicyRecipientLater: this person got too much for now; others are not concerned.
	PolicyRecipientLater Policy = "recipient_later"
	// PolicyRequest: permanent, the request is wrong.
	PolicyRequest Policy = "request"
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
