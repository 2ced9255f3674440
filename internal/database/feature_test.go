package database_test

import (
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

// TestFeatureLevel: a lease that a program without announcements takes over looks old, whatever its
// former holder said, and new again when a new program takes it back.
func TestFeatureLevel(t *testing.T) {
	db := dbtest.New(t)
	want := func(step string, level int, holder string) {
		t.Helper()
		gotLevel, gotHolder, err := database.NewFeatureLevels(db, time.Now).Lowest(t.Context())
		if err != nil || gotLevel != level || gotHolder != holder {
			t.Errorf("%s: level %d of %q (%v), want %d of %q", step, gotLevel, gotHolder, err,
				level, holder)
		}
	}
	want("nobody holds a lease", database.FeatureLevel, "")
	for _, holder := range []string{"new", "newer"} {
		if err := database.AnnounceInstance(t.Context(), db, holder); err != nil {
			t.Fatal(err)
		}
	}
	first := newLeases(t, db, "new", 0)
	lease := acquire(t, first, "send:wx1")
	acquire(t, newLeases(t, db, "newer", 0), "send:wx2")
	want("two new programs", database.FeatureLevel, "new")

	release := func(l *database.Lease) {
		t.Helper()
		if err := l.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	release(lease)
	old := acquire(t, newLeases(t, db, "old", 0), "send:wx1")
	want("an old program took over", 0, "old")
	release(old)
	want("nobody has taken it yet", database.FeatureLevel, "newer")
	old = acquire(t, newLeases(t, db, "old", 0), "send:wx1")
	execute(t, db, `UPDATE lease SET expires_at = CURRENT_TIMESTAMP(3) WHERE holder = 'old'`)
	want("the old program's lease has expired", database.FeatureLevel, "newer")
	release(old)
	acquire(t, first, "send:wx1")
	want("a new program took it back", database.FeatureLevel, "new")
}

// TestFeatureLevelsAreRemembered: asking before each claim does not read each time, and an answer
// does not outlive its second, also where the clock goes back.
func TestFeatureLevelsAreRemembered(t *testing.T) {
	db := dbtest.New(t)
	now := time.Now()
	levels := database.NewFeatureLevels(db, func() time.Time { return now })
	want := func(step string, level int) {
		t.Helper()
		if got, _, err := levels.Lowest(t.Context()); err != nil || got != level {
			t.Errorf("%s: level %d (%v), want %d", step, got, err, level)
		}
	}
	want("nobody holds a lease", database.FeatureLevel)
	acquire(t, newLeases(t, db, "old", 0), "send:wx1")
	now = now.Add(999 * time.Millisecond)
	want("within a second", database.FeatureLevel)
	now = now.Add(time.Millisecond)
	want("a second later", 0)
	execute(t, db, `UPDATE lease SET expires_at = CURRENT_TIMESTAMP(3)`)
	now = now.Add(-time.Hour)
	want("the clock went back", database.FeatureLevel)
}

// TestAnnouncements: who holds a lease or has announced lately is kept.
func TestAnnouncements(t *testing.T) {
	db := dbtest.New(t)
	for _, holder := range []string{"holds", "gone", "standby"} {
		if err := database.AnnounceInstance(t.Context(), db, holder); err != nil {
			t.Fatal(err)
		}
	}
	acquire(t, newLeases(t, db, "holds", 0), "send:wx1")
	execute(t, db, `UPDATE instance SET announced_at = CURRENT_TIMESTAMP(3) - INTERVAL 3 DAY`)
	if err := database.AnnounceInstance(t.Context(), db, "standby"); err != nil {
		t.Fatal(err)
	}
	got := selectAll[string](t, db, `SELECT holder FROM instance ORDER BY holder`)
	if len(got) != 2 || got[0] != "holds" || got[1] != "standby" {
		t.Errorf("%q are known, want holds and standby", got)
	}
}
