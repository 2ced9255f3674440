package intake

import (
	"database/sql"
	"time"

	"github.com/unionbridge/unionbridge/internal/applications"
)

// entry is a message that has been checked, on its way into the table.
type entry struct {
	session     applications.Session
	reservation applications.Reservation
	row         row
	keyed       bool          // row.DedupKey is of a key that the application gave
	content     string        // of what is compared within the window; "": nothing is
	window      time.Duration // the application's duplicate_window
	result      Result
}

// row is what is inserted into send_request.
type row struct {
	AppID       sql.NullString `db:"appid"`
	UnionID     sql.NullString `db:"unionid"`
	MiniAppID   sql.NullString `db:"mini_appid"`
	MiniOpenID  sql.NullString `db:"mini_openid"`
	OpenID      sql.NullString `db:"openid"`
	Template    string         `db:"template"`
	Data        string         `db:"data"`
	URL         sql.NullString `db:"url"`
	MiniPath    sql.NullString `db:"mini_path"`
	JumpAppID   sql.NullString `db:"jump_appid"`
	Page        sql.NullString `db:"page"`
	Lang        sql.NullString `db:"lang"`
	MiniState   sql.NullString `db:"mini_state"`
	Route       sql.NullString `db:"route"`
	Priority    int            `db:"priority"`
	DueAt       sql.NullTime   `db:"due_at"` // NULL: now, by the database's clock
	ExpiresAt   sql.NullTime   `db:"expires_at"`
	DedupKey    string         `db:"dedup_key"`
	Application string         `db:"application"`
}

// fill makes the row of a message, whose first account is the given one.
func (e *entry) fill(m *Message, account string, secret []byte) {
	e.row = row{
		AppID: nullable(m.AppID), UnionID: nullable(m.UnionID), MiniAppID: nullable(m.MiniAppID),
		MiniOpenID: nullable(m.MiniOpenID), OpenID: nullable(m.OpenID), Template: m.Template,
		Data: string(m.Data), URL: nullable(m.URL), MiniPath: nullable(m.MiniPath),
		JumpAppID: nullable(m.JumpAppID), Page: nullable(m.Page), Lang: nullable(m.Lang),
		MiniState: nullable(m.MiniState), Route: nullable(m.Route),
		Priority: m.priority(e.session.Application), DueAt: moment(m.DueAt),
		ExpiresAt: moment(m.ExpiresAt), Application: e.session.Application.Name,
	}
	e.identify(m, account, secret)
}

func nullable(text string) sql.NullString { return sql.NullString{String: text, Valid: text != ""} }

func moment(at time.Time) sql.NullTime { return sql.NullTime{Time: at.UTC(), Valid: !at.IsZero()} }

func text(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format(time.RFC3339Nano)
}
