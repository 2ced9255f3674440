// Package observation keeps what the instances have last seen of accounts at WeChat: how much of a
// day's quota is left, and what their checks found. So status, metrics and alarms agree, whichever
// instance asked, and know it after a restart.
package observation

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

const (
	// freshSeconds is how long a problem stands that nobody confirms. An account with a problem is
	// checked every five minutes.
	freshSeconds = "900"
	// maxText is what a column takes, in characters.
	maxText = 1024
)

// Quota is WeChat's latest answer about one endpoint of an account.
type Quota struct {
	AppID     string    `db:"appid"`
	Endpoint  string    `db:"endpoint"`
	Limit     int64     `db:"daily_limit"`
	Remaining int64     `db:"remaining"`
	AskedAt   time.Time `db:"asked_at"`
}

// Problem is something about an account that a person must fix.
type Problem struct {
	AppID   string    `db:"appid"`
	Reason  string    `db:"reason"`
	Subject string    `db:"subject"` // the alias; "": the whole account
	Text    string    `db:"text"`    // one line, no secret
	Cure    string    `db:"cure"`
	Since   time.Time `db:"since"`
}

// Store reads and writes observations.
type Store struct{ DB *sqlx.DB }

// SaveQuota keeps an answer; AskedAt is the database's now.
func (s Store) SaveQuota(ctx context.Context, q Quota) error {
	const query = `
		INSERT INTO account_quota (appid, endpoint, daily_limit, remaining, asked_at)
		VALUES (?, ?, ?, ?, CURRENT_TIMESTAMP(3))
		ON DUPLICATE KEY UPDATE daily_limit = VALUES(daily_limit), remaining = VALUES(remaining),
		                        asked_at = VALUES(asked_at)`
	_, err := s.DB.ExecContext(ctx, query, q.AppID, q.Endpoint, q.Limit, q.Remaining)
	if err != nil {
		return fmt.Errorf("storing a quota: %w", database.Explain(err))
	}
	return nil
}

// Quotas returns the latest answers, in the order of accounts and endpoints.
func (s Store) Quotas(ctx context.Context) ([]Quota, error) {
	const query = `
		SELECT appid, endpoint, daily_limit, remaining, asked_at
		  FROM account_quota
		 ORDER BY appid, endpoint`
	quotas := []Quota{}
	if err := s.DB.SelectContext(ctx, &quotas, query); err != nil {
		return nil, fmt.Errorf("reading quotas: %w", database.Explain(err))
	}
	return quotas, nil
}

// SaveProblems keeps what a check of an account found, and forgets what it did not find any more.
// Since stays that of the first time.
func (s Store) SaveProblems(ctx context.Context, appid string, found []Problem) error {
	query := `DELETE FROM account_problem WHERE appid = ? AND reason <> '` + ReasonNoUnionID + `'`
	args := []any{appid}
	for _, p := range found {
		query += ` AND NOT (reason = ? AND subject = ?)`
		args = append(args, p.Reason, p.Subject)
	}
	if _, err := s.DB.ExecContext(ctx, query, args...); err != nil {
		return fmt.Errorf("forgetting problems of an account: %w", database.Explain(err))
	}
	return s.keep(ctx, appid, found)
}

// ReasonNoUnionID is of a mini program whose users log in without a unionid, though others have one. No
// check finds it: a login does, see SaveProblem.
const ReasonNoUnionID = "login_without_unionid"

// SaveProblem keeps one thing that was found otherwise than by a check. It stands for as long as a
// check's, unless it is confirmed.
func (s Store) SaveProblem(ctx context.Context, p Problem) error {
	return s.keep(ctx, p.AppID, []Problem{p})
}

func (s Store) keep(ctx context.Context, appid string, found []Problem) error {
	if len(found) == 0 {
		return nil
	}
	const row = `(?, ?, ?, ?, ?, CURRENT_TIMESTAMP(3), CURRENT_TIMESTAMP(3))`
	var args []any
	for _, p := range found {
		args = append(args, appid, p.Reason, p.Subject, shorten(p.Text), shorten(p.Cure))
	}
	// since begins again where nobody had confirmed the problem for a while. It is written first:
	// MySQL and MariaDB evaluate the assignments from left to right.
	query := `
		INSERT INTO account_problem (appid, reason, subject, text, cure, since, seen_at)
		VALUES ` + strings.Repeat(row+", ", len(found)-1) + row + `
		ON DUPLICATE KEY UPDATE
		    since = CASE WHEN seen_at < CURRENT_TIMESTAMP(3) - INTERVAL ` + freshSeconds + ` SECOND
		                 THEN VALUES(since) ELSE since END,
		    seen_at = VALUES(seen_at), text = VALUES(text), cure = VALUES(cure)`
	if _, err := s.DB.ExecContext(ctx, query, args...); err != nil {
		return fmt.Errorf("storing problems of an account: %w", database.Explain(err))
	}
	return nil
}

// Problems returns what was found lately, in the order of accounts, reasons and subjects.
func (s Store) Problems(ctx context.Context) ([]Problem, error) {
	const query = `
		SELECT appid, reason, subject, text, cure, since
		  FROM account_problem
		 WHERE seen_at >= CURRENT_TIMESTAMP(3) - INTERVAL ` + freshSeconds + ` SECOND
		 ORDER BY appid, reason, subject`
	problems := []Problem{}
	if err := s.DB.SelectContext(ctx, &problems, query); err != nil {
		return nil, fmt.Errorf("reading problems of accounts: %w", database.Explain(err))
	}
	return problems, nil
}

func shorten(text string) string {
	if utf8.RuneCountInString(text) <= maxText {
		return text
	}
	return string([]rune(text)[:maxText-1]) + "…"
}
