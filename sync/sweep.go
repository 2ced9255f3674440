package sync

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
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

	broken atomic.Bool // fetching or storing has failed: no new batch
}

// newSweep returns a run that can date its questions.
func (s *Service) newSweep(ctx context.Context, account Account, run *tracker) (*sweep, error) {
	now, err := s.identities.Now(ctx)
	if err != nil {
		return nil, err
	}
	// A millisecond back: that clock is read in whole ones.
	return &sweep{
		svc: s, account: account, run: run, dbNow: now.Add(-time.Millisecond), dbRead: s.cfg.Now(),
	}, nil
}

// now dates a question by the database's clock, without a statement for each. It is early rather
// than late: what the map learnt after this moment is not older than the answer.
func (s *sweep) now() time.Time { return s.dbNow.Add(s.svc.cfg.Now().Sub(s.dbRead)) }

// The phases, as Progress.Phase.
const (
	phaseList    = "list"
	phaseCompare = "compare"
	phaseGone    = "gone"
)

// do is the whole sweep. Nobody is marked as gone before the list has ended cleanly and everybody
// else has been dealt with. Calling do again resumes an interrupted run: the list from its spool;
// the comparison finds the rest still to be done.
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
	s.logger().Info("sweep finished", "listed", r.Listed, "added", r.Added, "changed", r.Changed,
		"gone", r.Gone, "calls", r.Calls, "seconds", s.svc.cfg.Now().Sub(r.Started).Seconds())
	return nil
}

// apply updates the table from the list, and returns what the table knew before.
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
	err = s.settleMissing(ctx, missing, known.subscribed)
	if err != nil && !errors.Is(err, ErrTooManyGone) {
		return known, err
	}
	return known, cmp.Or(s.forgetOld(ctx), err)
}

func (s *sweep) spoolPath(kind string) string {
	name := fmt.Sprintf("sweep-%s-%d.%s", s.account.AppID, s.run.ID, kind)
	return filepath.Join(s.svc.cfg.SpoolDir, name)
}

// openList opens the spool of the follower list: what an interrupted run left on this machine, or
// an empty one.
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
		s.logger().Info("resuming a sweep of another machine or of a process that still lives: " +
			"the list is read again")
		return spool.Create(path)
	}
	if err == nil {
		s.logger().Info("resuming a sweep", "pages", listed.Runs(), "list_complete", listed.Ended())
	}
	return listed, err
}

// dropOthers deletes spools of this account's earlier runs, which will not be resumed.
func (s *sweep) dropOthers(path string) {
	pattern := filepath.Join(s.svc.cfg.SpoolDir, "sweep-"+s.account.AppID+"-*")
	others, _ := filepath.Glob(pattern) // its only error is a bad pattern
	for _, other := range others {
		if other == path {
			continue
		}
		if err := os.Remove(other); err != nil {
			s.logger().Warn("removing an old spool file", "err", err)
		}
	}
}

// leave keeps the list's spool if the run will be resumed, and drops it otherwise.
func (s *sweep) leave(listed *spool.File, err error) {
	if err == nil || errors.Is(err, ErrTooManyGone) || errors.Is(err, errEndless) {
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
