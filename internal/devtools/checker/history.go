// Package checker holds what a database says against what the simulated WeChat has received. It
// knows nothing of unionbridge but its tables: requests, rows and messages are matched by the order
// number in the message's text, which the program does not choose.
package checker

import (
	"database/sql"
	"encoding/json"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// KeyOrder is the key of the template's data that holds the order number.
const KeyOrder = "character_string4"

// Text is a message of the simulator's first template.
func Text(thing, amount, order string) map[string]string {
	return map[string]string{
		"thing1": thing, "time2": "2026-01-02 15:04", "amount3": amount, KeyOrder: order,
	}
}

// Data is the text in one of the two forms that send_request takes, {"thing1":"x"} or
// {"thing1":{"value":"x"}}.
func Data(text map[string]string, short bool) string {
	var data any = text
	if !short {
		long := make(map[string]any, len(text))
		for key, value := range text {
			long[key] = map[string]string{"value": value}
		}
		data = long
	}
	encoded, err := json.Marshal(data)
	if err != nil {
		panic(err) // maps of strings always encode
	}
	return string(encoded)
}

// Values reads {"thing1":{"value":"x"}}, the form that WeChat takes; anything else is nil, which
// equals no request's text.
func Values(data []byte) map[string]string {
	var fields map[string]struct {
		Value *string `json:"value"`
	}
	if json.Unmarshal(data, &fields) != nil {
		return nil
	}
	values := make(map[string]string, len(fields))
	for key, field := range fields {
		if field.Value == nil {
			return nil
		}
		values[key] = *field.Value
	}
	return values
}

// Order is the order number of a message; "" where it has none.
func Order(data []byte) string { return Values(data)[KeyOrder] }

// Request is what a producer knows of a request.
type Request struct {
	Order     string
	Recipient wechatsim.Identity // in the official account; OpenID may be empty
	Text      map[string]string
	Note      string        // for people
	Due       time.Duration // after the INSERT

	// Committed: the server has confirmed it. An unconfirmed request may exist: its answer was lost.
	Committed bool
	// Withdrawn: the server has confirmed that cancel is set, well before the request was due.
	Withdrawn bool
	// Waits: the recipient does not follow, so the row must wait.
	Waits bool
}

// Row is a request as send_request has it.
type Row struct {
	ID         int64        `db:"id"`
	Order      string       // the number in data
	Data       []byte       `db:"data"`
	Status     string       `db:"status"`
	Reason     string       `db:"reason"`
	Errcode    int64        `db:"errcode"`
	Errmsg     string       `db:"errmsg"`
	Cancel     bool         `db:"cancel"`
	Attempts   int          `db:"attempts"`
	Lease      string       `db:"lease"`
	MsgID      int64        `db:"msgid"`
	SentOpenID string       `db:"sent_openid"`
	Created    time.Time    `db:"created_at"`
	Due        time.Time    `db:"due_at"`
	Expires    sql.NullTime `db:"expires_at"`
	Attempted  sql.NullTime `db:"attempted_at"`
	InDoubt    sql.NullTime `db:"uncertain_at"`
	Finished   sql.NullTime `db:"finished_at"`
}

// ReadRows reads a table of send_request's shape. The pool must parse times.
func ReadRows(db harness.DB, table string) (rows []Row) {
	db.FetchAll(&rows, `
		SELECT id, data, status, COALESCE(reason, '') AS reason,
		       COALESCE(errcode, 0) AS errcode, COALESCE(errmsg, '') AS errmsg, cancel <> 0 AS cancel, attempts,
		       COALESCE(lease, '') AS lease, COALESCE(msgid, 0) AS msgid,
		       COALESCE(sent_openid, '') AS sent_openid, created_at, due_at, expires_at,
		       attempted_at, uncertain_at, finished_at
		  FROM `+table+`
		 ORDER BY id`)
	for i := range rows {
		r := &rows[i]
		if r.Order = Order(r.Data); r.Order == "" {
			var short map[string]string
			_ = json.Unmarshal(r.Data, &short) // a row without a number belongs to no request
			r.Order = short[KeyOrder]
		}
		r.Data = nil
	}
	return rows
}

// Receipt is a delivery receipt as send_receipt has it.
type Receipt struct {
	MsgID  int64  `db:"msgid"`
	OpenID string `db:"openid"`
}

// Post is one message that arrived at WeChat, whatever was answered. What the simulator delivers
// shows whether somebody got a message twice; only the posts show whether a message was repeated
// when that was no longer safe.
type Post struct {
	Order       string
	ClientMsgID string
	From        string // the daemon's name
	At          time.Time
}

// History is all that is known of a run in the end.
type History struct {
	AppID, TemplateID string

	Requests map[string]Request // by order number
	Rows     []Row
	Messages []wechatsim.Message
	Posts    []Post
	Receipts []Receipt // nil: there were no pushes

	// Undisturbed: nothing went wrong on the way, so each request must end sent.
	Undisturbed bool
	Times       *Times // nil: nothing is said about moments
	// NewIDs: WeChat answers a repetition with a msgid that no message has.
	NewIDs bool
	// AllReceipts: each message must have a receipt.
	AllReceipts bool
}

// Times are the bounds of what may happen when.
type Times struct {
	Window  time.Duration // within which a message may be repeated
	Slack   time.Duration // after its end a POST that began within it may still arrive
	Overdue time.Duration // how late after expires_at a message may still arrive
}
