package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/go-sql-driver/mysql"
	"github.com/spf13/cobra"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/sync"
)

// The exit codes. Scripts rely on them: a number is never given another meaning.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitConfig      = 3
	exitDatabase    = 4
	exitWeChat      = 5
	exitBusy        = 6
	exitBlocked     = 7
	exitNotSent     = 8
	exitNotYet      = 9
	exitInterrupted = 130
)

type exitMeaning struct {
	code  int
	words string
}

func exitMeanings() []exitMeaning {
	return []exitMeaning{
		{exitOK, "it worked; run: stopped by a signal, with everything under way finished"},
		{exitFailed, "it failed; lookup: nobody has this id; requests: one was refused or does " +
			"not exist; run: not everything finished in time;\n" +
			"       status --check: there is an alarm; import-users: not every line was stored; " +
			"grants check: one differs; doctor --strict: there is a warning;\n" +
			"       application check: it cannot work, or the secret is refused"},
		{exitUsage, "the command line is wrong"},
		{exitConfig, "the configuration is wrong or cannot be read"},
		{exitDatabase, "the database cannot be reached, refuses, or has another schema"},
		{exitWeChat, "WeChat cannot be reached or refuses"},
		{exitBusy, "another instance is doing this at the moment"},
		{exitBlocked, "sync: too many followers would be marked as gone, nobody was"},
		{exitNotSent, "send: final, and not sent: failed, expired, cancelled or unknown"},
		{exitNotYet, "send: still pending or waiting when --wait ended; it may go out later"},
		{exitInterrupted, "interrupted by a signal before the end"},
	}
}

func exitCodesTopic() *cobra.Command {
	text := "Exit codes of unionbridge:\n\n"
	for _, e := range exitMeanings() {
		text += fmt.Sprintf("  %3d  %s\n", e.code, e.words)
	}
	text += `
A second SIGTERM or SIGINT ends the process at once, wherever it stands; the shell
then shows 143 or 130. SIGHUP changes nothing: the configuration is read at the start
only, restart the daemon to apply a new one.`
	// Without Run it is a help topic, not a command.
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: text}
}

type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string { return e.err.Error() }
func (e exitError) Unwrap() error { return e.err }

func usageError(format string, args ...any) error {
	return exitError{exitUsage, fmt.Errorf(format, args...)}
}

func (c *cli) report(ctx context.Context, cmd *cobra.Command, err error) int {
	if err == nil {
		return exitOK
	}
	code, text := exitCode(err), err.Error()+cure(err)
	switch {
	case code == exitUsage, code == exitFailed && !c.begun:
		code = exitUsage
		// Without cobra's guesses, which take four lines.
		text, _, _ = strings.Cut(text, "\n")
		text += fmt.Sprintf(" (see %s --help)", cmd.CommandPath())
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		code, text = exitInterrupted, errInterrupted.Error()
	}
	if c.logs && c.cfg != nil && c.cfg.Log.Format == "json" {
		newLogger(c.cfg.Log, c.stderr).Error("unionbridge failed", "err", text, "exit_code", code)
		return code
	}
	// There is nowhere else to say that this failed.
	_, _ = fmt.Fprintln(c.stderr, "unionbridge:", visibleLines(text))
	return code
}

// exitCode finds an error's code. The order matters: a sweep's error may wrap several.
func exitCode(err error) int {
	if e, ok := errors.AsType[exitError](err); ok {
		return e.code
	}
	if _, ok := errors.AsType[*wechat.Error](err); ok {
		return exitWeChat
	}
	switch {
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	case errors.Is(err, sync.ErrBusy):
		return exitBusy
	case errors.Is(err, sync.ErrTooManyGone):
		return exitBlocked
	case isDatabase(err):
		return exitDatabase
	}
	return exitFailed
}

func isDatabase(err error) bool {
	if _, ok := errors.AsType[*database.SchemaError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return true
	}
	// A missing file is "unavailable" too: it might be the server's socket.
	_, isPath := errors.AsType[*fs.PathError](err)
	return !isPath && database.IsUnavailable(err)
}

// cure adds what to do, where the error itself does not say it.
func cure(err error) string {
	if we, ok := errors.AsType[*wechat.Error](err); ok {
		if words := wechat.ExplainAt(we.Endpoint, we.Code); words != "" {
			return "\n" + words
		}
	}
	if errors.Is(err, sync.ErrBusy) {
		return "; wait for it to end, or stop that instance"
	}
	return ""
}
