package sync

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
)

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
