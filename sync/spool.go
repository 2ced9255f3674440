package sync

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

// spool is a file of sorted runs of openids, one run a page of the follower list. It lets a list of any
// length be sorted with one page in memory: 29 bytes of disk a follower, a hundred million are 2.9 GB.
// It is also what a restart goes on from: each run carries the cursor behind it and a checksum, so that
// openSpool finds everything up to the last whole page whatever ended the process.
//
// The file is a sequence of runs: a header (runHeader), the cursor, the entries. An entry is one byte of
// length and the openid.
type spool struct {
	file    *os.File
	size    int64
	entries int64
	runs    []segment
	ended   bool // the list came to its end
}

// segment is where the entries of one run stand in the file.
type segment struct {
	offset, length int64
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

// maxOpenID is the longest openid that the table and a spool entry hold; WeChat's have 28 bytes.
const maxOpenID = 64

func spoolError(err error) error {
	return fmt.Errorf("writing the spool in state_dir (is its disk full?): %w", err)
}

// createSpool makes an empty spool, in the place of one that was there.
func createSpool(path string) (*spool, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("creating the spool folder (state_dir): %w", err)
	}
	// Not the old file emptied: a frozen process may still have that one open, and wake up.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("creating a spool file (state_dir): %w", err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("creating a spool file (state_dir): %w", err)
	}
	if err := own(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &spool{file: file}, nil
}

// own takes the file's lock, which ends with the process. Without it a process that was frozen past its lease
// and the one that went on with its run could write to one file.
func own(file *os.File) error {
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("locking a spool file (state_dir): %w", err)
	}
	return nil
}

// openSpool opens what a run that was stopped has left, cut back to its last whole page. Without a file
// the error is fs.ErrNotExist, and syscall.EWOULDBLOCK where a living process still has it.
func openSpool(path string) (*spool, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening a spool file (state_dir): %w", err)
	}
	if err := own(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	s := &spool{file: file}
	r := bufio.NewReaderSize(file, 64<<10)
	for !s.ended && s.load(r) {
	}
	if err := file.Truncate(s.size); err != nil {
		return nil, errors.Join(spoolError(err), file.Close())
	}
	return s, nil
}

// load takes the next run in, if it is there and whole.
func (s *spool) load(r io.Reader) bool {
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
		s.ended = true
	case "run":
	default:
		return false
	}
	s.enter(h, string(cursor))
	return true
}

// enter notes a run that stands at the end of the file.
func (s *spool) enter(h runHeader, cursor string) {
	start := s.size + int64(binary.Size(h)) + int64(h.Cursor)
	s.size = start + int64(h.Length)
	s.entries += int64(h.Entries)
	if !s.ended {
		s.runs = append(s.runs, segment{offset: start, length: int64(h.Length), cursor: cursor})
	}
}

// append writes one run, whose openids are sorted, in one write. cursor is where the list goes on behind it.
func (s *spool) append(sorted []string, cursor string) error {
	return s.write([3]byte{'r', 'u', 'n'}, sorted, cursor)
}

// end marks that the list came to its end.
func (s *spool) end() error {
	s.ended = true
	return s.write([3]byte{'e', 'n', 'd'}, nil, "")
}

func (s *spool) write(magic [3]byte, sorted []string, cursor string) error {
	const headerSize = 16
	buf := make([]byte, headerSize, headerSize+len(cursor)+len(sorted)*29)
	buf = append(buf, cursor...)
	for _, id := range sorted {
		if id == "" || len(id) > maxOpenID {
			return fmt.Errorf("spooling an openid of %d bytes: 1 to %d are allowed", len(id), maxOpenID)
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
	if _, err := s.file.WriteAt(buf, s.size); err != nil {
		return spoolError(err)
	}
	s.enter(h, cursor)
	return nil
}

// cursors returns where the list can be gone on from: its beginning and the end of each run.
func (s *spool) cursors() []string {
	cursors := make([]string, 1, len(s.runs)+1)
	for _, run := range s.runs {
		cursors = append(cursors, run.cursor)
	}
	return cursors
}

// close closes the file and leaves it, for a later openSpool.
func (s *spool) close() error { return s.file.Close() }

// remove closes and deletes the file.
func (s *spool) remove() error {
	return errors.Join(s.file.Close(), os.Remove(s.file.Name()))
}

// mergeBuffers is the memory that all read buffers of one merge share.
const mergeBuffers = 4 << 20

// merge returns an iterator over all runs in the order of the openids' bytes, each openid once.
func (s *spool) merge() (*mergeReader, error) {
	m := &mergeReader{}
	size := min(max(mergeBuffers/max(len(s.runs), 1), 512), 64<<10)
	for _, seg := range s.runs {
		c := &runCursor{r: bufio.NewReaderSize(io.NewSectionReader(s.file, seg.offset, seg.length), size)}
		ok, err := c.next()
		if err != nil {
			return nil, err
		}
		if ok {
			m.heap = append(m.heap, c)
		}
	}
	for i := len(m.heap)/2 - 1; i >= 0; i-- {
		m.down(i)
	}
	return m, nil
}
