// Package spool sorts a list of openids of any length with one page of it in memory: sorted runs in
// a file, merged when they are read. A restart resumes from the file.
//
// It knows nothing of WeChat, of the database and of package sync.
package spool

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// File is a file of sorted runs of openids, one run a page of the follower list. It takes 29 bytes
// of disk a follower: a hundred million are 2.9 GB. Each run carries a checksum and the cursor
// behind it, so that Open finds everything up to the last whole page, whatever ended the process.
//
// The file is a sequence of runs: a header (runHeader), the cursor, the entries. An entry is one
// byte of length and the openid. A File is for one goroutine at a time.
type File struct {
	file    *os.File
	size    int64
	entries int64
	runs    []segment
	ended   bool
}

type segment struct {
	offset, length int64
	entries        int64
	cursor         string
}

// runHeader stands before a run, little endian.
type runHeader struct {
	Magic   [3]byte // "run"; "end" for the mark behind the last one
	Cursor  uint8   // length of the cursor
	Entries uint32
	Length  uint32 // of the entries in bytes
	Sum     uint32 // CRC-32 (IEEE) of the header with a Sum of 0, the cursor and the entries
}

const headerSize = 16 // of runHeader

// What the table and a spool entry hold at most; WeChat's openids, which are its cursors too, have
// 28 bytes.
const (
	maxOpenID = 64
	maxCursor = 255
)

// Fits reports whether a spool can hold the openid.
func Fits(openid string) bool { return openid != "" && len(openid) <= maxOpenID }

func spoolError(err error) error {
	return fmt.Errorf("writing the spool in state_dir (is its disk full?): %w", err)
}

// Create makes an empty spool. A file at the same path is replaced.
func Create(path string) (*File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("creating the spool folder (state_dir): %w", err)
	}
	// The old file is not truncated: a frozen process may still have it open, and wake up.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("creating a spool file (state_dir): %w", err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("creating a spool file (state_dir): %w", err)
	}
	if err := lock(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &File{file: file}, nil
}

// lock takes the file's lock, which ends with the process. Without it a process that was frozen
// past its lease, and the one that took over its run, could write to one file.
func lock(file *os.File) error {
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("locking a spool file (state_dir): %w", err)
	}
	return nil
}

// Open opens what an interrupted run left, cut back to its last whole page. The error is
// fs.ErrNotExist without a file, and syscall.EWOULDBLOCK while another process holds it.
func Open(path string) (*File, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening a spool file (state_dir): %w", err)
	}
	if err := lock(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	f := &File{file: file}
	r := bufio.NewReaderSize(file, 64<<10)
	for !f.ended && f.load(r) {
	}
	if err := file.Truncate(f.size); err != nil {
		return nil, errors.Join(spoolError(err), file.Close())
	}
	return f, nil
}

// load reads the next run and reports whether it is there and whole.
func (f *File) load(r io.Reader) bool {
	var h runHeader
	if binary.Read(r, binary.LittleEndian, &h) != nil {
		return false
	}
	sum := crc32.NewIEEE()
	blank := h
	blank.Sum = 0
	if binary.Write(sum, binary.LittleEndian, blank) != nil {
		return false
	}
	cursor := make([]byte, h.Cursor)
	if _, err := io.ReadFull(io.TeeReader(r, sum), cursor); err != nil {
		return false
	}
	if _, err := io.CopyN(sum, r, int64(h.Length)); err != nil || sum.Sum32() != h.Sum {
		return false
	}
	switch string(h.Magic[:]) {
	case "end":
		f.ended = true
	case "run":
	default:
		return false
	}
	f.enter(h, string(cursor))
	return true
}

// enter records a run at the end of the file.
func (f *File) enter(h runHeader, cursor string) {
	start := f.size + int64(binary.Size(h)) + int64(h.Cursor)
	f.size = start + int64(h.Length)
	f.entries += int64(h.Entries)
	if !f.ended {
		f.runs = append(f.runs, segment{
			offset: start, length: int64(h.Length), entries: int64(h.Entries), cursor: cursor,
		})
	}
}

// Append writes one run, whose openids are sorted, in one write. cursor is where the list continues
// behind it.
func (f *File) Append(sorted []string, cursor string) error {
	return f.write([3]byte{'r', 'u', 'n'}, sorted, cursor)
}

// DropLast removes the last run, which must be there: its page is read again.
func (f *File) DropLast() error {
	last := f.runs[len(f.runs)-1]
	size := last.offset - headerSize - int64(len(last.cursor))
	if err := f.file.Truncate(size); err != nil {
		return spoolError(err)
	}
	f.runs, f.size, f.entries = f.runs[:len(f.runs)-1], size, f.entries-last.entries
	return nil
}

// End marks the end of the list.
func (f *File) End() error {
	f.ended = true
	return f.write([3]byte{'e', 'n', 'd'}, nil, "")
}

func (f *File) write(magic [3]byte, sorted []string, cursor string) error {
	if len(cursor) > maxCursor {
		return fmt.Errorf("spooling a cursor of %d bytes: at most %d are allowed",
			len(cursor), maxCursor)
	}
	buf := make([]byte, headerSize, headerSize+len(cursor)+len(sorted)*29)
	buf = append(buf, cursor...)
	for _, id := range sorted {
		if !Fits(id) {
			return fmt.Errorf("spooling an openid of %d bytes: 1 to %d are allowed",
				len(id), maxOpenID)
		}
		buf = append(append(buf, byte(len(id))), id...)
	}
	h := runHeader{
		Magic: magic, Cursor: uint8(len(cursor)), Entries: uint32(len(sorted)),
		Length: uint32(len(buf) - headerSize - len(cursor)),
	}
	for range 2 { // the second time with the sum of the first
		if _, err := binary.Encode(buf, binary.LittleEndian, h); err != nil {
			return spoolError(err)
		}
		if h.Sum == 0 {
			h.Sum = crc32.ChecksumIEEE(buf)
		}
	}
	if _, err := f.file.WriteAt(buf, f.size); err != nil {
		return spoolError(err)
	}
	f.enter(h, cursor)
	return nil
}

// Entries returns the number of openids that were written, repeated ones included.
func (f *File) Entries() int64 { return f.entries }

// Runs returns the number of runs.
func (f *File) Runs() int64 { return int64(len(f.runs)) }

// Ended reports whether the list came to its end.
func (f *File) Ended() bool { return f.ended }

// Cursors returns where reading the list can resume: its beginning and the end of each run.
func (f *File) Cursors() []string {
	cursors := make([]string, 1, len(f.runs)+1)
	for _, run := range f.runs {
		cursors = append(cursors, run.cursor)
	}
	return cursors
}

// Close closes the file and keeps it for a later Open.
func (f *File) Close() error { return f.file.Close() }

// Remove closes and deletes the file.
func (f *File) Remove() error {
	return errors.Join(f.file.Close(), os.Remove(f.file.Name()))
}
