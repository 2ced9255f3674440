// Package channel is the contract between the sending engine and one kind of message, such as the
// official account's template message, and holds what all kinds share: the reading of a row.
//
// A channel knows WeChat's answers and the map. It must not know the queue, the rate, or when it is
// called: the engine (package sender) decides that by an Outcome's verdict, never by an errcode.
package channel

import (
	"context"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/bridge"
)

// Name is what send_request.channel says of a message that went out this way.
type Name string

// Channel is one way to reach a person, through one account. It is safe for concurrent use.
type Channel interface {
	Name() Name
	// AppID is the sending account: it has one queue, one lease, one rate, one pause and one quota.
	AppID() string
	Traits() Traits
	// Prepare validates a message and builds what does not depend on the person. Its only call is
	// the catalog's.
	Prepare(ctx context.Context, c Content) (Draft, *Rejection)
	// Resolve finds each target's address, in one or two queries a batch; same length and order.
	Resolve(ctx context.Context, targets []Target) ([]Address, error)
	// Deliver makes exactly one POST and interprets its answer. It never retries, sleeps or stores.
	Deliver(ctx context.Context, d Draft, to Address) Outcome
	// Learn takes outcomes before they are settled: doubtful followers, templates that WeChat knows or
	// denies. It may store that. After an error the engine retries the unreachable ones instead of
	// letting them wait.
	Learn(ctx context.Context, done []Delivery) error
	// Wait returns when nothing runs any more in the channel's background. The engine calls it each
	// time it has lost the account's lease, and uses the channel again when it has the lease back.
	Wait()
}

// Previewer is a channel that can say, before there is a row, what it would reject.
type Previewer interface {
	// Preview returns what Prepare would, as far as is known: it makes no call and waits for nothing.
	Preview(c Content) *Rejection
	// Keys returns the keys of a template, as far as they are known.
	Keys(templateID string) []string
}

// Settler is a channel with a ledger of its own.
type Settler interface {
	// Settle writes what the outcomes use up, in the transaction that settles them: either both are
	// stored or none. It may be called again with the same deliveries, whose Attempt tells them
	// apart.
	Settle(ctx context.Context, tx *sqlx.Tx, done []Delivery) error
}

// NoGrant says of a person that the account may not write to them now: they have not accepted the
// template, or not often enough.
const NoGrant bridge.Reachability = "no_grant"

// Attempter is a channel whose attempts are written down before they are made: with Idempotency 0
// they alone say which messages are in doubt.
type Attempter interface {
	// Reserve writes attempts down, in a transaction that is committed before the first of them is
	// posted. It returns their addresses; same length and order. An attempt whose address is not
	// reachable any more is not written, and must not be posted. The engine ends the others, in the
	// transaction that settles them, after Settle.
	Reserve(ctx context.Context, tx *sqlx.Tx, attempts []Reservation) ([]Address, error)
}

// Reservation is a message that is about to be posted.
type Reservation struct {
	RequestID int64
	Lease     string // the token of the request's claim
	Draft     Draft
	Address   Address
}

// Traits are what the engine must know of a kind of message.
type Traits struct {
	// Idempotency is how long WeChat drops a repeated client_msg_id. An attempt in doubt is
	// repeated within it only; with 0, never.
	Idempotency     time.Duration
	SerialPerPerson bool   // WeChat refuses a second POST to a person while one is under way
	QuotaPath       string // what openapi/quota/get is asked for; "": no known quota
	Waits           bool   // an unreachable person may become reachable, so the row waits
	WaitOver        string // the reason of a row that has waited in vain; "": what it waited for
	Receipts        bool   // accepted messages get a receipt by msgid
	Ledger          bool   // a ledger has every message that was sent
}

// Content is what a row says.
type Content struct {
	Template    string // as the row names it: an alias, or TemplateID itself
	TemplateID  string
	Data        string // JSON, as the producer wrote it
	URL         string
	MiniAppID   string // "": not given
	MiniPath    string
	JumpAppID   string // the mini program of MiniPath, any that the account is linked with; "": MiniAppID
	Page        string // of the mini program that sends; "": as the alias says
	State       string // the version that Page opens in: developer, trial, formal; "": the same
	Lang        string // of the words around a subscribe message; "": the same
	ClientMsgID string // the same for every attempt of a request
	Redelivery  bool   // an earlier attempt may have delivered it: it goes unchanged or not at all
}

// Draft is a channel's own message, complete but for the address.
type Draft interface {
	TemplateID() string
	Warning() string // what was changed of the message, or is doubtful about it; "": nothing
}

// Target is a person to be reached with a template.
type Target struct {
	bridge.Recipient
	TemplateID string
	// RefusedAt is when the person last refused this message here; zero: never. Then only what came
	// after it makes them reachable.
	RefusedAt time.Time
}

// Address is where a person is reached. OpenID is set where Reachability is bridge.Reachable.
type Address = bridge.Resolution

// Rejection says why a row cannot be sent as it is. After > 0: not yet, look again after that time;
// Reason "" then leaves the row's reason as it is. After 0: never.
type Rejection struct {
	Reason  string // send_request.reason
	Message string // send_request.errmsg
	Field   string // what is at fault, where it is one thing: url, data.thing1
	After   time.Duration
}

// The reasons of requests that are wrong in themselves, as send_request.reason. They are final, but
// for a template that is only missing so far: a row cannot be changed, a new one is needed.
const (
	ReasonNoRecipient       = "no_recipient"
	ReasonSeveralRecipients = "several_recipients"
	ReasonBadRecipient      = "bad_recipient"
	ReasonUnknownTemplate   = "unknown_template"
	ReasonBadData           = "bad_data"
	ReasonBadLink           = "bad_link"
	ReasonBadOption         = "bad_option" // route, mini_state or lang
	ReasonBadKeyword        = "bad_keyword"
)

// Reject is a final Rejection.
func Reject(reason, message string) *Rejection {
	return &Rejection{Reason: reason, Message: message}
}

// RejectField is Reject with what is at fault.
func RejectField(reason, field, message string) *Rejection {
	return &Rejection{Reason: reason, Message: message, Field: field}
}

// Attempt names one attempt to send a request: no two have both in common.
type Attempt struct {
	RequestID int64
	At        time.Time // send_request.attempted_at
}

// Delivery is a message, where it went, and what became of it.
type Delivery struct {
	Attempt Attempt
	Draft   Draft
	Address Address
	Outcome Outcome
}

// Verdict is what the engine does about an answer.
type Verdict int

// The verdicts.
const (
	Sent          Verdict = iota + 1
	Retry                 // transient, for this message or person alone: after a growing pause
	Rejected              // final for this message
	Unreachable           // this person cannot be reached for now; the map is asked to find out
	InDoubt               // the message may have been accepted
	PauseAccount          // concerns every message of the account
	PauseTemplate         // concerns every message of the template
)

// Pause is why, and so how long, an account is paused.
type Pause int

// The pauses.
const (
	PauseNetwork Pause = iota + 1 // WeChat cannot be reached: seconds, never stored
	PauseToken                    // a renewed token was refused as well: half a minute
	PauseMinute                   // until the next minute
	PauseDay                      // until the quota of the day resets
	PauseConfig                   // a person has to act: probed every few minutes
)

// Scope is how much an answer proves to work.
type Scope int

// The scopes, the narrower including the wider.
const (
	ScopeNone     Scope = iota
	ScopeToken          // WeChat takes the account's access token
	ScopeAccount        // the account may send
	ScopeTemplate       // it may send this template, too
)

// Outcome is what WeChat's answer to one POST means. It carries no secret in any field.
type Outcome struct {
	Verdict    Verdict
	Reason     string // send_request.reason; "" when sent
	Message    string // send_request.errmsg
	Cure       string // what the log tells the operator to do; "": nothing known
	Err        error  // the answer in full, for the log; nil when sent
	Code       int    // send_request.errcode; 0: none
	MsgID      int64
	After      time.Duration // Retry: the first backoff
	Pause      Pause         // PauseAccount: its kind
	Confirms   Scope         // what the answer proves to work: it ends the pause of that
	Overloaded bool          // WeChat is overrun: slow the account down
	// Refused: it is the person who cannot be reached this way, or does not want to be. Another channel
	// may reach them.
	Refused bool
}
