package intake

import (
	"time"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/database"
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

// row is what is inserted into send_request. An empty text is NULL, and so is a moment that is zero.
type row struct {
	AppID       string
	UnionID     string
	MiniAppID   string
	MiniOpenID  string
	OpenID      string
	Template    string `db:"template"`
	Data        string `db:"data"`
	URL         string
	MiniPath    string
	JumpAppID   string
	Page        string
	Lang        string
	MiniState   string
	Route       string
	Priority    int
	DueAt       time.Time // zero: now, by the database's clock
	ExpiresAt   time.Time
	DedupKey    string `db:"dedup_key"`
	Application string `db:"application"`
}

// column is a column of send_request that a message may have.
type column struct {
	name  string
	mark  string           // of its value in a statement; "": a plain one
	value func(r *row) any // nil: NULL
}

func columns() []column {
	text := func(name string, of func(r *row) string) column {
		return column{name, "", func(r *row) any { return database.Null(of(r)) }}
	}
	moment := func(at time.Time) any {
		if at.IsZero() {
			return nil
		}
		return at.UTC()
	}
	return []column{
		text("appid", func(r *row) string { return r.AppID }),
		text("unionid", func(r *row) string { return r.UnionID }),
		text("mini_appid", func(r *row) string { return r.MiniAppID }),
		text("mini_openid", func(r *row) string { return r.MiniOpenID }),
		text("openid", func(r *row) string { return r.OpenID }),
		text("template", func(r *row) string { return r.Template }),
		text("data", func(r *row) string { return r.Data }),
		text("url", func(r *row) string { return r.URL }),
		text("mini_path", func(r *row) string { return r.MiniPath }),
		text("jump_appid", func(r *row) string { return r.JumpAppID }),
		text("page", func(r *row) string { return r.Page }),
		text("lang", func(r *row) string { return r.Lang }),
		text("mini_state", func(r *row) string { return r.MiniState }),
		text("route", func(r *row) string { return r.Route }),
		{"priority", "", func(r *row) any { return r.Priority }},
		{"due_at", "COALESCE(?, CURRENT_TIMESTAMP(3))", func(r *row) any { return moment(r.DueAt) }},
		{"expires_at", "", func(r *row) any { return moment(r.ExpiresAt) }},
		text("dedup_key", func(r *row) string { return r.DedupKey }),
		text("application", func(r *row) string { return r.Application }),
	}
}

// fill makes the row of a message, whose first account is the given one.
func (e *entry) fill(m *Message, account string, secret []byte) {
	e.row = row{
		AppID: m.AppID, UnionID: m.UnionID, MiniAppID: m.MiniAppID, MiniOpenID: m.MiniOpenID,
		OpenID: m.OpenID, Template: m.Template, Data: string(m.Data), URL: m.URL, MiniPath: m.MiniPath,
		JumpAppID: m.JumpAppID, Page: m.Page, Lang: m.Lang, MiniState: m.MiniState, Route: m.Route,
		Priority: m.priority(e.session.Application), DueAt: m.DueAt, ExpiresAt: m.ExpiresAt,
		Application: e.session.Application.Name,
	}
	e.identify(m, account, secret)
}

func text(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format(time.RFC3339Nano)
}
