package sync

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// spool is a file of sorted runs of openids, one run a page of the follower list. It lets a list of any
// length be sorted with one page in memory: 29 bytes of disk a follower, a hundred million are 2.9 GB.
//
// An entry is one byte of length and the openid.
type spool struct {
	file    *os.File
	w       *bufio.Writer
	size    int64
	entries int64
	runs    []segment
}

// segment is where one run stands in the file.
type segment struct{ offset, length int64 }

// maxOpenID is the longest openid that the table and a spool entry hold; WeChat's have 28 bytes.
const maxOpenID = 64

func createSpool(dir, name string) (*spool, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("creating the spool folder (state_dir): %w", err)
	}
	file, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("creating a spool file (state_dir): %w", err)
	}
	return &spool{file: file, w: bufio.NewWriterSize(file, 64<<10)}, nil
}

// append writes one run, whose openids are sorted.
func (s *spool) append(sorted []string) error {
	for _, id := range sorted {
		if err := s.add(id); err != nil {
			return err
		}
	}
	s.closeRun()
	return nil
}

// add writes one openid to the run that is open; closeRun ends it.
func (s *spool) add(id string) error {
	if id == "" || len(id) > maxOpenID {
		return fmt.Errorf("spooling an openid of %d bytes: 1 to %d are allowed", len(id), maxOpenID)
	}
	if err := s.w.WriteByte(byte(len(id))); err != nil {
		return fmt.Errorf("writing the spool (is the disk of state_dir full?): %w", err)
	}
	if _, err := s.w.WriteString(id); err != nil {
		return fmt.Errorf("writing the spool (is the disk of state_dir full?): %w", err)
	}
	s.size += int64(1 + len(id))
	s.entries++
	return nil
}

// closeRun makes one run of everything that was added since the last one.
func (s *spool) closeRun() {
	var start int64
	if n := len(s.runs); n > 0 {
		start = s.runs[n-1].offset + s.runs[n-1].length
	}
	s.runs = append(s.runs, segment{offset: start, length: s.size - start})
}

// remove closes and deletes the file.
func (s *spool) remove() error {
	return errors.Join(s.file.Close(), os.Remove(s.file.Name()))
}

// mergeBuffers is the memory that all read buffers of one merge share.
const mergeBuffers = 4 << 20

// merge returns an iterator over all runs in the order of the openids' bytes, each openid once.
func (s *spool) merge() (*mergeReader, error) {
	if err := s.w.Flush(); err != nil {
		return nil, fmt.Errorf("writing the spool (is the disk of state_dir full?): %w", err)
	}
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

// runCursor reads one run.
type runCursor struct {
	r   *bufio.Reader
	key []byte // the current openid, in buf
	buf [maxOpenID]byte
}

func (c *runCursor) next() (bool, error) {
	n, err := c.r.ReadByte()
	if err == io.EOF {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading the spool: %w", err)
	}
	if n == 0 || n > maxOpenID {
		return false, fmt.Errorf("reading the spool: an entry of %d bytes: the file is damaged", n)
	}
	c.key = c.buf[:n]
	if _, err := io.ReadFull(c.r, c.key); err != nil {
		return false, fmt.Errorf("reading the spool: %w", err)
	}
	return true, nil
}

// mergeReader is a binary heap of run cursors. It is written out, because container/heap costs an
// interface call a comparison and this loop sees every follower.
type mergeReader struct {
	heap []*runCursor
	last []byte
}

// next returns the next openid, valid until the following call, or nil at the end.
func (m *mergeReader) next() ([]byte, error) {
	for len(m.heap) > 0 {
		top := m.heap[0]
		fresh := !bytes.Equal(top.key, m.last)
		if fresh {
			m.last = append(m.last[:0], top.key...)
		}
		ok, err := top.next()
		if err != nil {
			return nil, err
		}
		if !ok {
			m.heap[0] = m.heap[len(m.heap)-1]
			m.heap = m.heap[:len(m.heap)-1]
		}
		m.down(0)
		if fresh {
			return m.last, nil
		}
	}
	return nil, nil
}

func (m *mergeReader) down(i int) {
	for {
		least := 2*i + 1
		if least >= len(m.heap) {
			return
		}
		if r := least + 1; r < len(m.heap) && bytes.Compare(m.heap[r].key, m.heap[least].key) < 0 {
			least = r
		}
		if bytes.Compare(m.heap[i].key, m.heap[least].key) <= 0 {
			return
		}
		m.heap[i], m.heap[least] = m.heap[least], m.heap[i]
		i = least
	}
}
