package sync

import (
	"context"
	"fmt"
	"log/slog"
)

// sweep is one run of one account: a sort-merge of WeChat's follower list with the table.
type sweep struct {
	svc     *Service
	account Account
	run     *tracker
}

// The phases, as Progress.Phase.
const (
	phaseList    = "list"
	phaseCompare = "compare"
	phaseGone    = "gone"
)

// do is the whole sweep. Only after a clean end of the list, and only after everybody else has been
// dealt with, is anybody marked as gone.
func (s *sweep) do(ctx context.Context) error {
	listed, err := createSpool(s.svc.cfg.SpoolDir, fmt.Sprintf("sweep-%s-%d.spool", s.account.AppID, s.run.ID))
	if err != nil {
		return err
	}
	defer s.drop(listed)
	if err := s.list(ctx, listed); err != nil {
		return err
	}
	missing, err := createSpool(s.svc.cfg.SpoolDir, fmt.Sprintf("sweep-%s-%d.missing", s.account.AppID, s.run.ID))
	if err != nil {
		return err
	}
	defer s.drop(missing)
	known, err := s.compare(ctx, listed, missing)
	if err != nil {
		return err
	}
	err = s.settleMissing(ctx, missing, known)
	r := s.run.snapshot()
	s.svc.cfg.Logger.Info("sweep finished", "appid", r.AppID, "run", r.ID, "listed", r.Listed, "added", r.Added,
		"changed", r.Changed, "gone", r.Gone, "calls", r.Calls, "seconds", s.svc.cfg.Now().Sub(r.Started).Seconds())
	return err
}

func (s *sweep) drop(sp *spool) {
	if err := sp.remove(); err != nil {
		s.logger().Warn("removing a spool file", "err", err)
	}
}

func (s *sweep) logger() *slog.Logger {
	return s.svc.cfg.Logger.With("appid", s.account.AppID, "run", s.run.ID)
}
