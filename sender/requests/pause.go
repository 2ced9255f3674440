package requests

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// ReasonOperator is account_state.reason of what an operator has paused; its errmsg says why. The
// daemon never ends it. docs/sql.md has the scopes.
const ReasonOperator = "operator"

// The scopes of account_state, of an account and of a template of it: an operator's pause stands
// beside one of WeChat's, so that neither ends the other.
const (
	scopeOperator         = "operator"
	scopeOperatorTemplate = "operator:"
	scopeSend             = "send"
	scopeTemplate         = "template:"
)

// Pausable is an account, or a template of it, that an operator may pause.
type Pausable struct {
	AppID      string
	TemplateID string // "": the whole account
}

func (p Pausable) operatorScope() string {
	if p.TemplateID == "" {
		return scopeOperator
	}
	return scopeOperatorTemplate + p.TemplateID
}

func (p Pausable) daemonScope() string {
	if p.TemplateID == "" {
		return scopeSend
	}
	return scopeTemplate + p.TemplateID
}

// String names it for people.
func (p Pausable) String() string {
	if p.TemplateID == "" {
		return p.AppID
	}
	return "template " + p.TemplateID + " of " + p.AppID
}

// Paused returns what a row of account_state is about.
func Paused(appid, scope string) Pausable {
	for _, prefix := range []string{scopeTemplate, scopeOperatorTemplate} {
		if id, ok := strings.CutPrefix(scope, prefix); ok {
			return Pausable{appid, id}
		}
	}
	return Pausable{AppID: appid}
}

// Paused returns what is paused.
func (p Pause) Paused() Pausable { return Paused(p.AppID, p.Scope) }

// ReasonPunished is account_state.reason of an account that WeChat has punished. It has the
// operator's scope: only a person knows when the punishment is over.
const ReasonPunished = "punished"

// Punish pauses an account that WeChat has punished, in WeChat's words, until Resume. A pause of an
// operator's stays as it is.
func (s Store) Punish(ctx context.Context, appid, words string) error {
	const query = `
		INSERT INTO account_state (appid, scope, reason, errmsg) VALUES (?, ?, ?, ?)
		ON DUPLICATE KEY UPDATE errmsg = CASE reason WHEN VALUES(reason) THEN VALUES(errmsg) ELSE errmsg END`
	return s.exec(ctx, "pausing a punished account", query, appid, scopeOperator, ReasonPunished, words)
}

// ByOperator reports whether an operator has paused it.
func (p Pause) ByOperator() bool { return p.Reason == ReasonOperator }

// Pauses returns what is paused, of all accounts, in the order of account and scope.
func (s Store) Pauses(ctx context.Context) ([]Pause, error) { return s.pauses(ctx, "<>") }

// Punished reports whether WeChat has punished the account, as a push said: ErrMsg says how, and what
// to do.
func (p Pause) Punished() bool { return p.Scope == scopeOperator && p.Reason == ReasonPunished }

// Sends reports whether an instance sends for the account, or has sent: others may have a
// configuration with accounts that are not in this one.
func (s Store) Sends(ctx context.Context, appid string) (bool, error) {
	const query = `SELECT (SELECT COUNT(*) FROM lease WHERE name = ?) +
		(SELECT COUNT(*) FROM account_state WHERE appid = ?)`
	var n int64
	if err := s.DB.GetContext(ctx, &n, query, queue.LeaseName(appid), appid); err != nil {
		return false, fmt.Errorf("looking for the account: %w", database.Explain(err))
	}
	return n > 0, nil
}

// Pause pauses an account, or a template of it, in an operator's words, until Resume. A second time
// it changes the words alone. It reports whether it changed anything.
func (s Store) Pause(ctx context.Context, what Pausable, words string) (changed bool, err error) {
	before, err := s.pausesOf(ctx, what, what.operatorScope())
	if err != nil || len(before) > 0 && before[0].ErrMsg == words {
		return false, err
	}
	const query = `
		INSERT INTO account_state (appid, scope, reason, errmsg) VALUES (?, ?, ?, ?)
		ON DUPLICATE KEY UPDATE errmsg = VALUES(errmsg)`
	return true, s.exec(ctx, "pausing", query,
		what.AppID, what.operatorScope(), ReasonOperator, words)
}

// Resume ends an operator's pause of an account, or of a template of it, and one of WeChat's: that
// the daemon begins again if its cause is still there, after one message. It returns what it ended.
func (s Store) Resume(ctx context.Context, what Pausable) (ended []Pause, err error) {
	scopes := []string{what.operatorScope(), what.daemonScope()}
	ended, err = s.pausesOf(ctx, what, scopes...)
	if err != nil || len(ended) == 0 {
		return nil, err
	}
	const query = `DELETE FROM account_state WHERE appid = ? AND scope IN (?, ?)`
	return ended, s.exec(ctx, "resuming", query, what.AppID, scopes[0], scopes[1])
}

func (s Store) pausesOf(ctx context.Context, what Pausable, scopes ...string) ([]Pause, error) {
	all, err := s.Pauses(ctx)
	return slices.DeleteFunc(all, func(p Pause) bool {
		return p.AppID != what.AppID || !slices.Contains(scopes, p.Scope)
	}), err
}

// exec runs a statement; what begins the error's text.
func (s Store) exec(ctx context.Context, what, query string, args ...any) error {
	err := database.Retry(ctx, func(ctx context.Context) error {
		_, err := s.DB.ExecContext(ctx, query, args...)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", what, database.Explain(err))
	}
	return nil
}
