package figures

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/internal/status"
)

// TestCache: one read for all who ask at once and for a while, longer where it takes long; a read
// that fails leaves the last good report, and whoever gives up leaves the read.
func TestCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads, takes, fail := 0, time.Second, error(nil)
		cache := NewCache(func(ctx context.Context) (status.Report, error) {
			reads++
			select {
			case <-time.After(takes):
			case <-ctx.Done():
				return status.Report{}, ctx.Err()
			}
			return status.Report{At: status.Time{Time: time.Now()}}, fail
		}, time.Now)
		expect := func(what string, want int) {
			t.Helper()
			if reads != want {
				t.Errorf("%s: %d reads, want %d", what, reads, want)
			}
		}
		var asking sync.WaitGroup
		for range 5 {
			asking.Go(func() {
				if _, err := cache.Report(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		asking.Wait()
		first, _ := cache.Report(t.Context())
		expect("at once", 1)
		time.Sleep(19 * time.Second)
		_, _ = cache.Report(t.Context())
		expect("a read of a second stands for twenty", 1)
		time.Sleep(2 * time.Second)
		fail = errors.New("gone")
		last, err := cache.Report(t.Context())
		if !errors.Is(err, fail) || last.At != first.At {
			t.Errorf("of %v, %v, want the last good one", last.At, err)
		}
		expect("old", 2)
		time.Sleep(minFresh + time.Second) // although the read took a second
		fail = nil
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := cache.Report(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if last, err := cache.Report(t.Context()); err != nil || last.At == first.At {
			t.Errorf("%v, %v", last.At, err)
		}
		expect("given up and asked again", 3)
		time.Sleep(21 * time.Second)
		takes = time.Hour
		if _, err := cache.Report(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a database that hangs: %v", err)
		}
	})
}

// TestUnreadable: without a report the metrics say so, and show no old figure.
func TestUnreadable(t *testing.T) {
	cache := NewCache(func(context.Context) (status.Report, error) {
		return status.Report{Alarms: []status.Alarm{{Code: "x"}}}, errors.New("gone")
	}, time.Now)
	reg := prometheus.NewRegistry()
	reg.MustRegister(NewCollector(cache, "me"))
	families, err := reg.Gather()
	if err != nil || len(families) != 1 || families[0].GetName() != "unionbridge_status_up" ||
		families[0].GetMetric()[0].GetGauge().GetValue() != 0 {
		t.Errorf("%v, %v", families, err)
	}
}
