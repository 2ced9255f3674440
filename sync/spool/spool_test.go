package spool

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

func readAll(t *testing.T, sp *File) []string {
	t.Helper()
	list, err := sp.Merge()
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for {
		id, err := list.Next()
		if err != nil {
			t.Fatal(err)
		}
		if id == nil {
			return ids
		}
		ids = append(ids, string(id))
	}
}

func TestMergesRuns(t *testing.T) {
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
			sp, err := Create(filepath.Join(t.TempDir(), "x.list"))
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for _, run := range runs {
				if err := sp.Append(run, ""); err != nil {
					t.Fatal(err)
				}
				want = append(want, run...)
			}
			slices.Sort(want)
			want = slices.Compact(want)
			if diff := cmp.Diff(want, readAll(t, sp)); diff != "" {
				t.Errorf("merged list differs (-want +got):\n%s", diff)
			}
			if err := sp.Remove(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestMergesManyRandomRuns(t *testing.T) {
	const seed = 7
	rnd := rand.New(rand.NewPCG(seed, seed))
	sp, err := Create(filepath.Join(t.TempDir(), "made", "by", "it", "x.list"))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for range 200 {
		run := make([]string, rnd.IntN(500))
		for i := range run {
			run[i] = "o" + strings.Repeat(string(rune('a'+rnd.IntN(26))),
				1+rnd.IntN(30)) + string(rune('A'+rnd.IntN(26)))
		}
		slices.Sort(run)
		if err := sp.Append(run, ""); err != nil {
			t.Fatal(err)
		}
		want = append(want, run...)
	}
	slices.Sort(want)
	if diff := cmp.Diff(slices.Compact(want), readAll(t, sp)); diff != "" {
		t.Errorf("seed %d: merged list differs (-want +got):\n%s", seed, diff)
	}
}

func TestRefusesOddIDs(t *testing.T) {
	sp, err := Create(filepath.Join(t.TempDir(), "x.list"))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"", strings.Repeat("o", maxOpenID+1)} {
		if err := sp.Append([]string{id}, ""); err == nil {
			t.Errorf("an openid of %d bytes was taken", len(id))
		}
	}
}

func TestFolderThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Create(filepath.Join(file, "x.list"))
	if err == nil || !strings.Contains(err.Error(), "state_dir") {
		t.Errorf("got %v, want an error that names state_dir", err)
	}
}

func TestDamagedFile(t *testing.T) {
	sp, err := Create(filepath.Join(t.TempDir(), "x.list"))
	if err != nil {
		t.Fatal(err)
	}
	if err := sp.Append([]string{"oAAAA", "oBBBB"}, "oBBBB"); err != nil {
		t.Fatal(err)
	}
	if _, err := sp.Merge(); err != nil {
		t.Fatal(err)
	}
	if _, err := sp.file.WriteAt([]byte{0xff}, sp.runs[0].offset+6); err != nil {
		t.Fatal(err)
	}
	list, err := sp.Merge()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := list.Next(); err == nil {
		t.Error("the damaged entry was read without an error")
	}
}

// TestResume: at whatever byte the file was cut or damaged, Open finds the whole runs before it.
func TestResume(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.list")
	sp, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	var ends []int64
	pages := [][]string{{"oA", "oC"}, {}, {"oB", "oBB"}}
	for i, page := range pages {
		if err := sp.Append(page, "cursor"+string(rune('0'+i))); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, sp.size)
	}
	if err := errors.Join(sp.End(), sp.Close()); err != nil {
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
			got, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			wantCursors := []string{"", "cursor0", "cursor1", "cursor2"}[:min(wantRuns, 3)+1]
			if diff := cmp.Diff(wantCursors, got.Cursors()); diff != "" || got.ended != (wantRuns == 4) {
				t.Fatalf("%s at byte %d: ended %v, cursors differ (-want +got):\n%s", name, cut,
					got.ended, diff)
			}
			if !got.ended { // it continues where it was cut
				if err := got.Append([]string{"oZ"}, "cursorZ"); err != nil {
					t.Fatal(err)
				}
				if ids := readAll(t, got); len(ids) == 0 || ids[len(ids)-1] != "oZ" {
					t.Fatalf("%s at byte %d: %v after resuming", name, cut, ids)
				}
			}
			if err := got.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestFileOfALivingProcess: a file that is still written cannot be opened, and a new one at its
// path is another file.
func TestFileOfALivingProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.list")
	frozen, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Fatalf("got %v, want that the file is locked", err)
	}
	fresh, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(fresh.Append([]string{"oB"}, ""), frozen.Append([]string{"oA"}, "")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"oB"}, readAll(t, fresh)); diff != "" {
		t.Errorf("the new file differs (-want +got):\n%s", diff)
	}
}

func TestNoFile(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "x.list")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
}

// TestDropLast: what is dropped does not come back, neither in the file that goes on nor in the one
// that is opened again.
func TestDropLast(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.list")
	sp, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(sp.Append([]string{"a", "b"}, "b"))
	check(sp.Append([]string{"c", "d", "e", "f"}, "f"))
	check(sp.DropLast())
	check(sp.Append([]string{"d"}, "d"))
	for range 2 {
		if diff := cmp.Diff([]string{"", "b", "d"}, sp.Cursors()); diff != "" || sp.Entries() != 3 {
			t.Errorf("%d entries, cursors (-want +got):\n%s", sp.Entries(), diff)
		}
		if diff := cmp.Diff([]string{"a", "b", "d"}, readAll(t, sp)); diff != "" {
			t.Errorf("merged list differs (-want +got):\n%s", diff)
		}
		check(sp.Close())
		sp, err = Open(path)
		check(err)
	}
	check(sp.DropLast())
	check(sp.DropLast())
	if sp.Entries() != 0 || sp.Runs() != 0 {
		t.Errorf("%d entries in %d runs are left", sp.Entries(), sp.Runs())
	}
}
