package sync

import (
	"testing"

	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// TestLateProgress: a save of a run's progress is given up when the run ends, and the server
// carries it out nevertheless, after the end was written.
func TestLateProgress(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(3, 0, 0))
	run := b.sweepOnce(t)
	late := newRun(kindSweep, appid, run.Started)
	late.ID = run.ID
	if err := b.ledger.save(t.Context(), late); err == nil {
		t.Error("the progress of a run that has ended was saved")
	}
	row := must(b.ledger.byID(t.Context(), run.ID))
	if row.State != StateDone || row.Listed != 3 || !row.EndedAt.Valid {
		t.Errorf("the ledger has %+v, want the run done", row)
	}
	if err := b.ledger.resume(t.Context(), late, run); err != nil {
		t.Fatal(err)
	}
	if err := b.ledger.save(t.Context(), late); err != nil {
		t.Errorf("saving the progress of a resumed run: %v", err)
	}
}

// TestLateProgressBesideRebind: a save that was under way when the run became one that fetches
// everybody does not take that back. A restart would resume the run as a normal one.
func TestLateProgressBesideRebind(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(1, 0, 0))
	run := newRun(kindSweep, appid, b.cfg.Now())
	if err := b.ledger.open(t.Context(), run, 0); err != nil {
		t.Fatal(err)
	}
	late := newRun(kindSweep, appid, b.cfg.Now())
	late.ID = run.ID
	if err := b.ledger.rebind(t.Context(), run); err != nil {
		t.Fatal(err)
	}
	if err := b.ledger.save(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	if row := must(b.ledger.byID(t.Context(), run.ID)); row.Mode != modeRebind {
		t.Errorf("the run's mode is %s, want %s", row.Mode, modeRebind)
	}
}
