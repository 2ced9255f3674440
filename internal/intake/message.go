// Package intake takes messages of applications into send_request, for all doors alike: it checks
// rights, templates and limits, recognises repetitions, and inserts. A message is accepted once its
// row is committed, and never before. The package knows no HTTP and sends nothing.
package intake

import (
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/unionbridge/unionbridge/internal/applications"
)

// Message is what an application wants sent. Empty fields are not given.
type Message struct {
	Call applications.Call // the right that it needs
	// AppID is the account that sends it; "": the way of its template, or the default account.
	AppID string
	Recipient
	Template string          // an alias of the configuration, or an id
	Data     json.RawMessage // {"thing1": "x"} or {"thing1": {"value": "x"}}
	URL      string
	MiniPath string // where a tap leads in the mini program JumpAppID
	// JumpAppID is the mini program that MiniPath is in; "": the recipient's, or the only one.
	JumpAppID string
	Options
	// Key is the application's own id of the message; a second one with the same key, account and
	// recipient is a repetition. "": duplicate_window of the application decides.
	Key string
}

// Recipient is a person, named by one of the three.
type Recipient struct {
	OpenID     string // at AppID
	MiniAppID  string // the mini program of MiniOpenID
	MiniOpenID string
	UnionID    string
}

// Options are what only some doors can say.
type Options struct {
	Route     string // official, mini, or both with a comma
	Page      string // of a subscribe message
	Lang      string // of a subscribe message: zh_CN, zh_HK, zh_TW, en_US
	MiniState string // of a subscribe message: formal, trial, developer
	Priority  *int   // nil: the application's; never more urgent than that
	DueAt     time.Time
	ExpiresAt time.Time
}

// Result is what became of one message: an ID, or an error, of which those that callers can tell
// apart are [*Rejection], [*applications.Refusal], [ErrUnavailable] and [ErrUnknown].
type Result struct {
	ID       int64 // of its row; a repetition gets the first one's
	Repeated bool
	Err      error
}

// Rejection is a message that cannot be sent as it is. The words are for the caller.
type Rejection struct {
	Code    int    // WeChat's errcode
	Field   string // of Message, in the words of the native door: "template", "data.thing1"
	Message string // WeChat's errmsg, then what to do
}

// Error returns the message with its code.
func (r *Rejection) Error() string { return strconv.Itoa(r.Code) + " " + r.Message }

// Of the following neither says anything about the message.
var (
	// ErrUnavailable means that nothing was inserted: the database is away, read-only, full or
	// overloaded.
	ErrUnavailable = errors.New("nothing was accepted")
	// ErrUnknown means that the row may have been committed or not.
	ErrUnknown = errors.New("whether it was accepted is unknown")
)

// Status is what an application may know of its own message.
type Status struct {
	ID         int64
	Status     string // pending, waiting, sent, failed, expired, unknown, cancelled
	Reason     string
	ErrCode    int
	ErrMsg     string
	Warning    string
	Attempts   int
	AppID      string // the account in whose queue it stands
	Channel    string
	MsgID      int64 // WeChat's
	Receipt    string
	CreatedAt  time.Time
	DueAt      time.Time
	FinishedAt time.Time // zero: not yet
	ReceiptAt  time.Time // zero: none
	// FallbackFrom is the account that it was moved from, and FallbackReason why.
	FallbackFrom, FallbackReason string
}

// ErrNotFound means that the application has no such message; others' are not told apart.
var ErrNotFound = errors.New("no such message")
