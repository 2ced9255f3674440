// Package checker holds what a database says against what the simulated WeChat has received. It
// knows nothing of unionbridge but its tables: requests, rows and messages are matched by the order
// number in the message's text, which the program does not choose.
package checker

import (
	"database/sql"
	"encoding/json"
	"fmt"
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

// Data is the text as send_request takes it: {"thing1":{"value":"x"}} or short, {"thing1":"x"}.
func Data(text map[string]string, short bool) string {
	data := make(map[string]any, len(text))
	for key, value := range text {
		if data[key] = value; !short {
			data[key] = map[string]string{"value": value}
		}
	}
	encoded, _ := json.Marshal(data) // maps of strings always encode
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

// OrderOf is the order number of a row's data, in either form; "" where it has none.
func OrderOf(data []byte) string {
	if order := Order(data); order != "" {
		return order
	}
	var short map[string]string
	_ = json.Unmarshal(data, &short) // a row without a number belongs to no request
	return short[KeyOrder]
}

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
	AppID      string       `db:"appid"` // the account in whose queue it stands
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
		SELECT id, COALESCE(appid, '') AS appid, data, status, COALESCE(reason, '') AS reason,
		       COALESCE(errcode, 0) AS errcode, COALESCE(errmsg, '') AS errmsg, cancel <> 0 AS cancel, attempts,
		       COALESCE(lease, '') AS lease, COALESCE(msgid, 0) AS msgid,
		       COALESCE(sent_openid, '') AS sent_openid, created_at, due_at, expires_at,
		       attempted_at, uncertain_at, finished_at
		  FROM `+table+`
		 ORDER BY id`)
	for i := range rows {
		r := &rows[i]
		r.Order, r.Data = OrderOf(r.Data), nil
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
	Subscribe   bool // a subscribe message; they have no client_msg_id
}

// History is all that is known of a run in the end.
type History struct {
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
	// Templates are what messages may go out with, by the account. nil: the simulator's first
	// template of the official account.
	Templates map[string]string
}

func (h History) templates() map[string]string {
	if h.Templates == nil {
		return map[string]string{harness.AppID: harness.TemplateID()}
	}
	return h.Templates
}

// Times are the bounds of what may happen when.
type Times struct {
	Window  time.Duration // within which a message may be repeated
	Slack   time.Duration // after its end a POST that began within it may still arrive
	Overdue time.Duration // how late after expires_at a message may still arrive
}

// Truth is what the simulator knows of people.
type Truth interface {
	Identify(appid, openid string) (wechatsim.Identity, bool)
}

// Follower is a row of the map.
type Follower struct {
	OpenID, UnionID string
	Subscribed      bool
}

// Followers is how much of the map is the truth. The key keeps an openid from occurring twice; so
// if as many rows are right as there are people, nobody is missing.
type Followers struct {
	Right, Wrong int
	// Misattributed of the wrong ones have another person's unionid or nobody's openid. The others
	// are late: the program has not looked them up yet.
	Misattributed int
	Subscribed    int
	Differences   []string // the first ones
}

// CompareMap reads an account's whole map row by row, since ten million do not fit into memory, and
// compares it with the truth.
func CompareMap(t *harness.T, db harness.DB, appid string, truth Truth) (f Followers) {
	rows, err := db.QueryContext(t.Context(), `
		SELECT openid, COALESCE(unionid, ''), subscribed FROM follower WHERE appid = ?`, appid)
	t.Checkf(err, "reading the map")
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var row Follower
		t.Checkf(rows.Scan(&row.OpenID, &row.UnionID, &row.Subscribed), "reading the map")
		f.add(row, appid, truth)
	}
	t.Checkf(rows.Err(), "reading the map")
	return f
}

func (f *Followers) add(row Follower, appid string, truth Truth) {
	if row.Subscribed {
		f.Subscribed++
	}
	const most = 5
	difference, misattributed := row.compare(appid, truth)
	if difference == "" {
		f.Right++
	} else if f.Wrong++; f.Wrong <= most {
		f.Differences = append(f.Differences, difference)
	}
	if misattributed {
		f.Misattributed++
	}
}

// compare says how the row differs from the truth; "": not at all.
func (r Follower) compare(appid string, truth Truth) (difference string, misattributed bool) {
	person, ok := truth.Identify(appid, r.OpenID)
	switch {
	case !ok:
		return r.OpenID + " is nobody's openid", true
	case person.UnionID != r.UnionID:
		return fmt.Sprintf("%s has the unionid %q, the truth is %q", r.OpenID, r.UnionID,
			person.UnionID), r.UnionID != ""
	case person.Following != r.Subscribed:
		return fmt.Sprintf("%s: subscribed is %t, the truth is %t", r.OpenID, r.Subscribed,
			person.Following), false
	}
	return "", false
}
