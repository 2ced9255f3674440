package sync

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
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
			sp, err := createSpool(filepath.Join(t.TempDir(), "x.list"))
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for _, run := range runs {
				if err := sp.append(run, ""); err != nil {
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
	sp, err := createSpool(filepath.Join(t.TempDir(), "made", "by", "it", "x.list"))
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
		if err := sp.append(run, ""); err != nil {
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
	sp, err := createSpool(filepath.Join(t.TempDir(), "x.list"))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"", strings.Repeat("o", maxOpenID+1)} {
		if err := sp.append([]string{id}, ""); err == nil {
			t.Errorf("an openid of %d bytes was taken", len(id))
		}
	}
}

func TestSpoolFolderThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := createSpool(filepath.Join(file, "x.list"))
	if err == nil || !strings.Contains(err.Error(), "state_dir") {
		t.Errorf("got %v, want an error that names state_dir", err)
	}
}

func TestDamagedSpool(t *testing.T) {
	sp, err := createSpool(filepath.Join(t.TempDir(), "x.list"))
	if err != nil {
		t.Fatal(err)
	}
	if err := sp.append([]string{"oAAAA", "oBBBB"}, "oBBBB"); err != nil {
		t.Fatal(err)
	}
	if _, err := sp.merge(); err != nil {
		t.Fatal(err)
	}
	if _, err := sp.file.WriteAt([]byte{0xff}, sp.runs[0].offset+6); err != nil {
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

// TestSpoolIsGoneOnWith: whatever byte the file was cut at, or damaged at, what is opened is the whole runs
// before it.
func TestSpoolIsGoneOnWith(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.list")
	sp, err := createSpool(path)
	if err != nil {
		t.Fatal(err)
	}
	var ends []int64
	pages := [][]string{{"oA", "oC"}, {}, {"oB", "oBB"}}
	for i, page := range pages {
		if err := sp.append(page, "cursor"+string(rune('0'+i))); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, sp.size)
	}
	if err := errors.Join(sp.end(), sp.close()); err != nil {
		t.Fatal(err)
	}
	ends = append(ends, sp.size)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(whole) + 1 {
		wantRuns := 0
		for wantRuns < len(ends) && ends[wantRuns] <= int64(cut) {
			wantRuns++
		}
		damaged := bytes.Clone(whole)
		if cut < len(whole) {
			damaged[cut] ^= 0x40
		}
		for name, content := range map[string][]byte{"cut": whole[:cut], "damaged": damaged} {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := openSpool(path)
			if err != nil {
				t.Fatal(err)
			}
			wantCursors := []string{"", "cursor0", "cursor1", "cursor2"}[:min(wantRuns, 3)+1]
			if diff := cmp.Diff(wantCursors, got.cursors()); diff != "" || got.ended != (wantRuns == 4) {
				t.Fatalf("%s at byte %d: ended %v, cursors differ (-want +got):\n%s", name, cut, got.ended, diff)
			}
			if !got.ended { // it goes on where it was cut
				if err := got.append([]string{"oZ"}, "cursorZ"); err != nil {
					t.Fatal(err)
				}
				if ids := readAll(t, got); len(ids) == 0 || ids[len(ids)-1] != "oZ" {
					t.Fatalf("%s at byte %d: %v after going on", name, cut, ids)
				}
			}
			if err := got.close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestSpoolOfALivingProcess: nobody goes on with a file that is still written, and a new one in its place is
// another file.
func TestSpoolOfALivingProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.list")
	frozen, err := createSpool(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openSpool(path); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Fatalf("got %v, want that the file is locked", err)
	}
	fresh, err := createSpool(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(fresh.append([]string{"oB"}, ""), frozen.append([]string{"oA"}, "")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"oB"}, readAll(t, fresh)); diff != "" {
		t.Errorf("the new file differs (-want +got):\n%s", diff)
	}
}

func TestNoSpool(t *testing.T) {
	if _, err := openSpool(filepath.Join(t.TempDir(), "x.list")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
}
