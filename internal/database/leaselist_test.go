package database_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/database"
)

func TestHeldLeases(t *testing.T) {
	db := seed(t, `
		INSERT INTO lease (name, holder, epoch, expires_at) VALUES
		    ('sweep:b', 'two', 7, CURRENT_TIMESTAMP(3) + INTERVAL 1 HOUR),
		    ('send:a',  'one', 3, CURRENT_TIMESTAMP(3) + INTERVAL 1 HOUR),
		    ('send:b',  'two', 4, CURRENT_TIMESTAMP(3) - INTERVAL 1 SECOND)`)
	held, err := database.HeldLeases(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range held {
		got = append(got, l.Name+" "+l.Holder)
	}
	if diff := cmp.Diff([]string{"send:a one", "sweep:b two"}, got); diff != "" {
		t.Errorf("held leases (-want +got):\n%s", diff)
	}
}
