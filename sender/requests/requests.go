// Package requests is the table send_request from outside: it inserts, lists, shows, retries,
// cancels and resolves requests, and counts them. A daemon may run meanwhile. The package sends
// nothing and knows no WeChat.
package requests

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// Store is send_request as producers and operators use it. Its changes are compare-and-sets: a
// daemon and an operator never both decide about a row.
type Store struct {
	DB *sqlx.DB
	// DefaultAppID is the official account that rows without appid belong to. Insert, Outcome and
	// Overview do without it.
	DefaultAppID string
	// Spend writes down what an attempt has used up of a grant, in the transaction that calls its
	// request sent. nil: nothing is counted.
	Spend func(ctx context.Context, tx *sqlx.Tx, a Attempt) error
}

// Record is a row of send_request, or of its archive, without recipient and message. Times are in
// UTC; empty texts, zeros and nil are NULL.
type Record struct {
	ID          int64      `db:"id"`
	AppID       string     `db:"appid"`
	Template    string     `db:"template"`
	Priority    int        `db:"priority"`
	Status      string     `db:"status"`
	Reason      string     `db:"reason"`
	ErrCode     int        `db:"errcode"`
	ErrMsg      string     `db:"errmsg"`
	Warning     string     `db:"warning"`
	Attempts    int        `db:"attempts"`
	Cancel      bool       `db:"cancel"` // its producer has withdrawn it
	DedupKey    string     `db:"dedup_key"`
	Channel     string     `db:"channel"`
	SentOpenID  string     `db:"sent_openid"`
	MsgID       int64      `db:"msgid"`
	CreatedAt   time.Time  `db:"created_at"`
	DueAt       time.Time  `db:"due_at"`
	ExpiresAt   *time.Time `db:"expires_at"`
	AttemptedAt *time.Time `db:"attempted_at"`
	FinishedAt  *time.Time `db:"finished_at"`
	Archived    bool       `db:"archived"` // it is in send_request_archive only
	Way
}

// Way is where a request came from, and by which accounts it goes.
type Way struct {
	Route string `db:"route"` // official, mini, or both with a comma in their order; "": the account alone
	// FallbackFrom is the account that it was moved from first, and why; "": it was not.
	FallbackFrom    string `db:"fallback_from"`
	FallbackReason  string `db:"fallback_reason"`
	FallbackErrCode int    `db:"fallback_errcode"`
	Application     string `db:"application"` // whose door it came through; "": it was inserted by SQL
}

// Final reports whether the daemon is done with the request.
func (r Record) Final() bool { return final(queue.Status(r.Status)) }

// SentAgain reports whether an operator had the request repeated although it was sent or may have
// been: its status speaks of the repetition, and the person may have got the message before.
func (r Record) SentAgain() bool {
	return strings.HasPrefix(r.Warning, strings.ReplaceAll(queue.SQLSentAgain, `''`, `'`))
}

func final(s queue.Status) bool { return s != queue.Pending && s != queue.Waiting }

// recordColumns are those that the role unionbridge_reader may read.
const recordColumns = `
		       r.id, COALESCE(r.appid, '') AS appid, r.template, r.priority, r.status,
		       COALESCE(r.reason, '') AS reason, COALESCE(r.errcode, 0) AS errcode,
		       COALESCE(r.errmsg, '') AS errmsg, COALESCE(r.warning, '') AS warning, r.attempts,
		       COALESCE(r.dedup_key, '') AS dedup_key, COALESCE(r.channel, '') AS channel,
		       COALESCE(r.sent_openid, '') AS sent_openid, COALESCE(r.msgid, 0) AS msgid, r.created_at,
		       r.due_at, r.expires_at, r.attempted_at, r.finished_at, COALESCE(r.route, '') AS route,
		       COALESCE(r.fallback_from, '') AS fallback_from,
		       COALESCE(r.fallback_reason, '') AS fallback_reason,
		       COALESCE(r.fallback_errcode, 0) AS fallback_errcode,
		       COALESCE(r.application, '') AS application`

// messageColumns are recipient and message.
const messageColumns = `,
		       COALESCE(r.unionid, '') AS unionid, COALESCE(r.mini_appid, '') AS mini_appid,
		       COALESCE(r.mini_openid, '') AS mini_openid, COALESCE(r.openid, '') AS openid,
		       COALESCE(r.url, '') AS url, COALESCE(r.mini_path, '') AS mini_path, r.data`

// Detail is all that is known of one request.
type Detail struct {
	Record
	UnionID    string `db:"unionid"`
	MiniAppID  string `db:"mini_appid"`
	MiniOpenID string `db:"mini_openid"`
	OpenID     string `db:"openid"`
	URL        string `db:"url"`
	MiniPath   string `db:"mini_path"`
	Data       string `db:"data"` // the message: personal data
	// WishedAt is since when it could have gone; nil: it has not been claimed yet, DueAt says it.
	WishedAt *time.Time `db:"wished_at"`
	// UncertainAt is when the first attempt began whose outcome is not known.
	UncertainAt *time.Time `db:"uncertain_at"`
	Leased      bool       `db:"leased"` // an attempt holds the row, or died with its instance
	Due         bool       `db:"due"`    // by the database's clock
	Overdue     bool       `db:"overdue"`
	// ReceiptStatus is what WeChat's receipt says, "" without one.
	ReceiptStatus string     `db:"receipt_status"`
	ReceiptAt     *time.Time `db:"receipt_at"`

	// SentBy is the instance that sends for the account at the moment, "" if none does.
	SentBy string
	// Pauses are why the account, or a template of it, is paused.
	Pauses []Pause
}

// UnderWay reports whether an attempt is under way, as far as the row says.
func (d Detail) UnderWay() bool { return !d.Final() && d.Leased && !d.Due }

// ErrNotFound means that neither send_request nor its archive has the row.
var ErrNotFound = errors.New("no such request")

const (
	detailQuery = `
		SELECT` + recordColumns + messageColumns + `, r.cancel <> 0 AS cancel, r.wished_at, r.uncertain_at,
		       r.lease IS NOT NULL AS leased, r.due_at <= CURRENT_TIMESTAMP(3) AS due,
		       COALESCE(r.expires_at <= CURRENT_TIMESTAMP(3), 0) AS overdue,
		       COALESCE(s.status, '') AS receipt_status, s.arrived_at AS receipt_at
		  FROM send_request r
		  LEFT JOIN send_receipt s ON s.appid = r.appid AND s.msgid = r.msgid
		 WHERE r.id = ?`
	archivedQuery = `
		SELECT` + recordColumns + messageColumns + `, 1 AS archived, r.wished_at,
		       COALESCE(r.receipt_status, '') AS receipt_status, r.receipt_at
		  FROM send_request_archive r
		 WHERE r.id = ?`
)

// Show returns one request, also an archived one; ErrNotFound if there is none.
func (s Store) Show(ctx context.Context, id int64) (Detail, error) {
	d, err := s.detail(ctx, id)
	if err != nil || d.Archived {
		return d, err
	}
	appid := cmp.Or(d.AppID, s.DefaultAppID)
	held, err := database.HeldLeases(ctx, s.DB)
	if err != nil {
		return d, err
	}
	for _, l := range held {
		if l.Name == queue.LeaseName(appid) {
			d.SentBy = l.Holder
		}
	}
	pauses, err := s.pauses(ctx, "<>")
	d.Pauses = slices.DeleteFunc(pauses, func(p Pause) bool { return p.AppID != appid })
	return d, err
}

func (s Store) detail(ctx context.Context, id int64) (Detail, error) {
	var d Detail
	err := s.DB.GetContext(ctx, &d, detailQuery, id)
	if errors.Is(err, sql.ErrNoRows) {
		err = s.DB.GetContext(ctx, &d, archivedQuery, id)
	}
	if errors.Is(err, sql.ErrNoRows) {
		return d, fmt.Errorf("%w: %d is not in send_request, nor in its archive", ErrNotFound, id)
	}
	if err != nil {
		return d, fmt.Errorf("reading request %d: %w", id, database.Explain(err))
	}
	return d, nil
}
