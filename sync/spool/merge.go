package spool

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
)

// mergeBuffers is the memory that all read buffers of one merge share.
const mergeBuffers = 4 << 20

// Merge returns a reader over all runs in the order of the openids' bytes, each openid once.
func (f *File) Merge() (*Reader, error) {
	r := &Reader{}
	size := min(max(mergeBuffers/max(len(f.runs), 1), 512), 64<<10)
	for _, seg := range f.runs {
		section := io.NewSectionReader(f.file, seg.offset, seg.length)
		c := &runCursor{r: bufio.NewReaderSize(section, size)}
		ok, err := c.next()
		if err != nil {
			return nil, err
		}
		if ok {
			r.heap = append(r.heap, c)
		}
	}
	for i := len(r.heap)/2 - 1; i >= 0; i-- {
		r.down(i)
	}
	return r, nil
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

// Reader merges the runs of a File. It is a binary heap of run cursors, written out because
// container/heap costs an interface call a comparison and this loop sees every follower.
type Reader struct {
	heap []*runCursor
	last []byte
}

// Next returns the next openid, valid until the following call, or nil at the end.
func (r *Reader) Next() ([]byte, error) {
	for len(r.heap) > 0 {
		top := r.heap[0]
		fresh := !bytes.Equal(top.key, r.last)
		if fresh {
			r.last = append(r.last[:0], top.key...)
		}
		ok, err := top.next()
		if err != nil {
			return nil, err
		}
		if !ok {
			r.heap[0] = r.heap[len(r.heap)-1]
			r.heap = r.heap[:len(r.heap)-1]
		}
		r.down(0)
		if fresh {
			return r.last, nil
		}
	}
	return nil, nil
}

func (r *Reader) down(i int) {
	for {
		least := 2*i + 1
		if least >= len(r.heap) {
			return
		}
		right := least + 1
		if right < len(r.heap) && bytes.Compare(r.heap[right].key, r.heap[least].key) < 0 {
			least = right
		}
		if bytes.Compare(r.heap[i].key, r.heap[least].key) <= 0 {
			return
		}
		r.heap[i], r.heap[least] = r.heap[least], r.heap[i]
		i = least
	}
}
