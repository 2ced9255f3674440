package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/harness"
)

func TestCheckCalls(t *testing.T) {
	for _, test := range []struct {
		lists, batches int64
		ok             bool
	}{{11, 1000, true}, {12, 1000 + flight, true}, {13, 1000, false}, {11, 1001 + flight, false}} {
		err := harness.Try(t.Context(), harness.NewScreen(io.Discard, time.Now), func(run *harness.T) {
			sweep := sweepTest{T: run, followers: 100_000}
			sweep.checkCalls(map[string]int64{harness.PathList: test.lists, harness.PathBatch: test.batches})
		})
		if (err == nil) != test.ok {
			t.Errorf("%d list calls and %d batchgets: %v", test.lists, test.batches, err)
		}
	}
}

func TestNodesGetPortsOfTheirOwn(t *testing.T) {
	run := harness.ForTest(t, harness.NewScreen(io.Discard, time.Now))
	taken := map[string]bool{}
	for i := range clusterSize {
		n := &node{t: run, name: "n", dir: t.TempDir(), pass: "secret"}
		n.prepare(taken)
		if len(taken) != 4*(i+1) {
			t.Errorf("%d nodes have %d addresses", i+1, len(taken))
		}
		settings := n.settings("/lib/provider.so", []string{"a:1", n.group})
		for _, want := range []string{
			"\nwsrep-provider=/lib/provider.so\n", "\nwsrep-cluster-address=gcomm://a:1," + n.group + "\n", "\nbind-address=127.0.0.1\n",
		} {
			if !strings.Contains(settings, want) {
				t.Errorf("the settings lack %q:\n%s", want, settings)
			}
		}
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"-followers", "10"}, {"argument"}, {"-unknown"}} {
		var out, errs bytes.Buffer
		if code := program().Execute(t.Context(), args, &out, &errs); code != 2 || errs.Len() == 0 || out.Len() > 0 {
			t.Errorf("Execute(%q) = %d, said %q", args, code, errs.String())
		}
	}
}
