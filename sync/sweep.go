package sync

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	gosync "sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/unionbridge/unionbridge/sync/spool"
)

// sweep is one run of one account: a sort-merge of WeChat's follower list with the table.
type sweep struct {
	svc     *Service
	account Account
	run     *tracker
	accept  int64 // followers whom an operator allows to be marked as gone
	empty   bool  // the table had nobody of this account when the comparison began

	dbNow, dbRead time.Time // the database's clock, and when it was read by ours: see now

	broken  atomic.Bool // asking or storing has failed: no new question
	sampled gosync.Once // see stillBound
	bound   error
}

// The phases, as Progress.Phase.
const (
	phaseList    = "list"
	phaseCompare = "compare"
	phaseGone    = "gone"
)

// do is the whole sweep. Only after a clean end of the list, and only after everybody else has been
// dealt with, is anybody marked as gone. A run that was stopped is gone on with by calling do again: the
// list from its spool, and of the rest the comparison finds by itself what is done.
func (s *sweep) do(ctx context.Context) (err error) {
	if err := s.plan(ctx); err != nil {
		return err
	}
	listed, err := s.openList()
	if err != nil {
		return err
	}
	defer func() { s.leave(listed, err) }()
	if !listed.Ended() {
		if err := s.list(ctx, listed); err != nil {
			return err
		}
	}
	known, err := s.apply(ctx, listed)
	if errors.Is(err, errRebound) {
		if err = s.rebind(ctx); err == nil {
			known, err = s.apply(ctx, listed)
		}
	}
	if err != nil {
		return err
	}
	s.svc.metrics.people(s.account.AppID, known)
	r := s.run.snapshot()
	s.svc.cfg.Logger.Info("sweep finished", "appid", r.AppID, "run", r.ID, "listed", r.Listed, "added", r.Added,
		"changed", r.Changed, "gone", r.Gone, "calls", r.Calls, "seconds", s.svc.cfg.Now().Sub(r.Started).Seconds())
	return nil
}

// apply brings the table in step with the list, and returns what the table knew before.
func (s *sweep) apply(ctx context.Context, listed *spool.File) (tally, error) {
	missing, err := spool.Create(s.spoolPath("missing-" + rand.Text()))
	if err != nil {
		return tally{}, err
	}
	defer s.drop(missing)
	known, err := s.compare(ctx, listed, missing)
	if err != nil {
		return tally{}, err
	}
	if err := s.separateDuplicates(ctx); err != nil {
		return tally{}, err
	}
	return known, s.settleMissing(ctx, missing, known.subscribed)
}

func (s *sweep) spoolPath(kind string) string {
	return filepath.Join(s.svc.cfg.SpoolDir, fmt.Sprintf("sweep-%s-%d.%s", s.account.AppID, s.run.ID, kind))
}

// openList opens the spool of the follower list: what a stopped run has left on this machine, or an empty
// one.
func (s *sweep) openList() (*spool.File, error) {
	path := s.spoolPath("list")
	s.dropOthers(path)
	listed, err := s.reopen(path)
	if err != nil {
		return nil, err
	}
	s.run.update(func(r *Run) { r.Pages, r.Listed = listed.Runs(), listed.Entries() })
	return listed, nil
}

func (s *sweep) reopen(path string) (*spool.File, error) {
	if !s.run.resumed {
		return spool.Create(path)
	}
	listed, err := spool.Open(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EWOULDBLOCK) {
		s.logger().Info("going on with a sweep of another machine or of a process that still lives: the list is read again")
		return spool.Create(path)
	}
	if err == nil {
		s.logger().Info("going on with a sweep", "pages", listed.Runs(), "list_complete", listed.Ended())
	}
	return listed, err
}

// dropOthers deletes spools of this account's earlier runs, which nobody goes on with.
func (s *sweep) dropOthers(path string) {
	others, _ := filepath.Glob(filepath.Join(s.svc.cfg.SpoolDir, "sweep-"+s.account.AppID+"-*")) // the pattern is good
	for _, other := range others {
		if other == path {
			continue
		}
		if err := os.Remove(other); err != nil {
			s.logger().Warn("removing an old spool file", "err", err)
		}
	}
}

// leave keeps the list's spool for the next start if the run will be gone on with, and drops it otherwise.
func (s *sweep) leave(listed *spool.File, err error) {
	if err == nil || errors.Is(err, ErrTooManyGone) {
		s.drop(listed)
		return
	}
	if err := listed.Close(); err != nil {
		s.logger().Warn("closing a spool file", "err", err)
	}
}

func (s *sweep) drop(sp *spool.File) {
	if err := sp.Remove(); err != nil {
		s.logger().Warn("removing a spool file", "err", err)
	}
}

func (s *sweep) logger() *slog.Logger {
	return s.svc.cfg.Logger.With("appid", s.account.AppID, "run", s.run.ID)
}
