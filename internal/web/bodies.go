package web

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// bodiesBudget bounds the memory of all bodies at once: a thousand slow callers with a megabyte
	// each would else take a gigabyte.
	bodiesBudget = 64 << 20
	// bodyStep is what a body takes of it at a time, so that one that comes slowly holds little.
	bodyStep = 16 << 10
	// bodyPatience is how long a body waits for others to be answered.
	bodyPatience = 2 * time.Second
)

// What a body can be refused for, besides that it ends early.
var (
	ErrBodyTooLarge = errors.New("the body is too large")
	ErrBodiesBusy   = errors.New("too many requests are being read")
)

// Bodies reads the bodies of requests into memory that they share. It is safe for concurrent use.
type Bodies struct{ budget *semaphore.Weighted }

// NewBodies returns memory for the bodies of a listener.
func NewBodies() *Bodies { return &Bodies{semaphore.NewWeighted(bodiesBudget)} }

// Read returns the body of a request, of at most so many bytes. Call release when it is not needed
// any more, also after an error.
func (b *Bodies) Read(r *http.Request, most int) (body []byte, release func(), err error) {
	held := int64(0)
	release = func() { b.budget.Release(held) }
	if r.ContentLength > int64(most) {
		return nil, release, ErrBodyTooLarge
	}
	limited := http.MaxBytesReader(nil, r.Body, int64(most))
	for {
		if len(body) == cap(body) {
			step := int64(max(bodyStep, cap(body))) // doubles
			if body == nil && r.ContentLength >= 0 {
				step = min(step, r.ContentLength+1) // one more, to read the end
			}
			if err := b.take(r.Context(), step); err != nil {
				return nil, release, err
			}
			held += step
			grown := make([]byte, len(body), cap(body)+int(step))
			copy(grown, body)
			body = grown
		}
		n, err := limited.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch _, large := errors.AsType[*http.MaxBytesError](err); {
		case large:
			return nil, release, ErrBodyTooLarge
		case errors.Is(err, io.EOF):
			return body, release, nil
		case err != nil:
			return nil, release, err
		}
	}
}

func (b *Bodies) take(ctx context.Context, n int64) error {
	if b.budget.TryAcquire(n) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, bodyPatience)
	defer cancel()
	if b.budget.Acquire(ctx, n) != nil {
		return ErrBodiesBusy
	}
	return nil
}
