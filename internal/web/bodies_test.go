package web

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

func withBody(t *testing.T, body io.Reader, length int64) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", body)
	r.ContentLength = length
	return r
}

func TestBodiesRead(t *testing.T) {
	b := NewBodies()
	for name, test := range map[string]struct {
		body   io.Reader
		length int64
		want   error
	}{
		"nothing":             {strings.NewReader(""), 0, nil},
		"as much as allowed":  {strings.NewReader(strings.Repeat("x", 100_000)), 100_000, nil},
		"in chunks":           {iotest.OneByteReader(strings.NewReader(strings.Repeat("x", 40_000))), -1, nil},
		"too much, announced": {strings.NewReader(""), 100_001, ErrBodyTooLarge},
		"too much, in chunks": {strings.NewReader(strings.Repeat("x", 100_001)), -1, ErrBodyTooLarge},
		"ends early":          {iotest.ErrReader(io.ErrUnexpectedEOF), 10, io.ErrUnexpectedEOF},
	} {
		got, release, err := b.Read(withBody(t, test.body, test.length), 100_000)
		if !errors.Is(err, test.want) || err == nil && test.length >= 0 && int64(len(got)) != test.length {
			t.Errorf("%s: %d bytes, %v, want %v", name, len(got), err, test.want)
		}
		if err == nil && !bytes.Equal(got, bytes.Repeat([]byte("x"), len(got))) {
			t.Errorf("%s: the body is another one", name)
		}
		release()
	}
	if !b.budget.TryAcquire(bodiesBudget) {
		t.Error("not all of the memory came back")
	}
}

// TestBodiesBusy: beyond the budget a body waits for others to be answered, and not for ever. One that
// comes slowly holds little meanwhile.
func TestBodiesBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBodies()
		slow, writer := io.Pipe()
		ended := make(chan error, 1)
		go func() {
			_, release, err := b.Read(withBody(t, slow, 1<<20), 1<<20)
			release()
			ended <- err
		}()
		synctest.Wait()
		if !b.budget.TryAcquire(bodiesBudget - bodyStep) {
			t.Fatal("a body of which nothing has come holds more than a step")
		}
		began := time.Now()
		_, release, err := b.Read(withBody(t, strings.NewReader("x"), 1), 10)
		release()
		if took := time.Since(began); !errors.Is(err, ErrBodiesBusy) || took != bodyPatience {
			t.Errorf("%v after %v", err, took)
		}
		time.AfterFunc(time.Second, func() { b.budget.Release(bodiesBudget - bodyStep) })
		if _, release, err = b.Read(withBody(t, strings.NewReader("x"), 1), 10); err != nil {
			t.Errorf("once others are answered: %v", err)
		}
		release()
		_ = writer.CloseWithError(io.ErrUnexpectedEOF)
		if err := <-ended; !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
	})
}
