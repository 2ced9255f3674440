package sync

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func readAll(t *testing.T, sp *spool) []string {
	t.Helper()
	list, err := sp.merge()
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for {
		id, err := list.next()
		if err != nil {
			t.Fatal(err)
		}
		if id == nil {
			return ids
		}
		ids = append(ids, string(id))
	}
}

func TestSpoolMergesRuns(t *testing.T) {
	for name, runs := range map[string][][]string{
		"nothing":                  {},
		"empty runs":               {{}, {}},
		"one run":                  {{"oA", "oB"}},
		"interleaved":              {{"oA", "oD", "oF"}, {"oB", "oC", "oG"}, {"oE"}},
		"twice in and over runs":   {{"oA", "oA", "oB"}, {"oA", "oB"}, {"oB"}},
		"bytes, not letters":       {{"o-", "oZ"}, {"o_", "oa"}, {"o0"}},
		"prefix before longer":     {{"oAB"}, {"oA"}},
		"longest openid that fits": {{strings.Repeat("o", maxOpenID)}},
	} {
		t.Run(name, func(t *testing.T) {
			sp, err := createSpool(t.TempDir(), "x.spool")
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for _, run := range runs {
				if err := sp.append(run); err != nil {
					t.Fatal(err)
				}
				want = append(want, run...)
			}
			slices.Sort(want)
			want = slices.Compact(want)
			if diff := cmp.Diff(want, readAll(t, sp)); diff != "" {
				t.Errorf("merged list differs (-want +got):\n%s", diff)
			}
			if err := sp.remove(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSpoolMergesManyRandomRuns(t *testing.T) {
	const seed = 7
	rnd := rand.New(rand.NewPCG(seed, seed))
	sp, err := createSpool(filepath.Join(t.TempDir(), "made", "by", "it"), "x.spool")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for range 200 {
		run := make([]string, rnd.IntN(500))
		for i := range run {
			run[i] = "o" + strings.Repeat(string(rune('a'+rnd.IntN(26))), 1+rnd.IntN(30)) + string(rune('A'+rnd.IntN(26)))
		}
		slices.Sort(run)
		if err := sp.append(run); err != nil {
			t.Fatal(err)
		}
		want = append(want, run...)
	}
	slices.Sort(want)
	if diff := cmp.Diff(slices.Compact(want), readAll(t, sp)); diff != "" {
		t.Errorf("seed %d: merged list differs (-want +got):\n%s", seed, diff)
	}
}

func TestSpoolRefusesOddIDs(t *testing.T) {
	sp, err := createSpool(t.TempDir(), "x.spool")
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"", strings.Repeat("o", maxOpenID+1)} {
		if err := sp.add(id); err == nil {
			t.Errorf("an openid of %d bytes was taken", len(id))
		}
	}
}

func TestSpoolFolderThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := createSpool(file, "x.spool")
	if err == nil || !strings.Contains(err.Error(), "state_dir") {
		t.Errorf("got %v, want an error that names state_dir", err)
	}
}

func TestDamagedSpool(t *testing.T) {
	sp, err := createSpool(t.TempDir(), "x.spool")
	if err != nil {
		t.Fatal(err)
	}
	if err := sp.append([]string{"oAAAA", "oBBBB"}); err != nil {
		t.Fatal(err)
	}
	if _, err := sp.merge(); err != nil {
		t.Fatal(err)
	}
	if _, err := sp.file.WriteAt([]byte{0xff}, 6); err != nil {
		t.Fatal(err)
	}
	list, err := sp.merge()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := list.next(); err == nil {
		t.Error("the damaged entry was read without an error")
	}
}
