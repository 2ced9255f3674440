package compat

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// forwardTimeout is how long a forwarded call may take: WeChat draws pictures.
const forwardTimeout = 10 * time.Second

// Forwarder makes single other calls with WeChat's own token.
type Forwarder interface {
	// Knows reports whether a path may be forwarded at all.
	Knows(path string) bool
	Forward(ctx context.Context, f Forwarding) (*Forwarded, error)
}

// Forwarding is a call that is to be forwarded.
type Forwarding struct {
	AppID       string // whose token is used
	Method      string
	Path        string
	Query       url.Values // without the token
	ContentType string
	Body        []byte
}

// Forwarded is WeChat's answer, which is passed on as it is. Its body is closed then.
type Forwarded struct {
	Status      int
	ContentType string
	Body        io.ReadCloser
}

// forwarding is the endpoint of a path that may be forwarded.
func (d *Door) forwarding(method, path string) (endpoint, bool) {
	if !d.cfg.Forwarder.Knows(path) {
		return endpoint{}, false
	}
	if method != http.MethodPost {
		method = http.MethodGet
	}
	return endpoint{method: method, timeout: forwardTimeout, serve: d.forward}, true
}

func (d *Door) forward(ctx context.Context, c *call) (any, error) {
	if !slices.Contains(c.session.Application.Forward, c.URL.Path) {
		return nil, refused(48001, "api unauthorized: not allowed to application "+
			c.session.Application.Name+" (applications[].forward)")
	}
	query := c.URL.Query()
	query.Del("access_token")
	return forwarded(d.cfg.Forwarder.Forward(ctx, Forwarding{
		AppID: c.session.AppID, Method: c.Method, Path: c.URL.Path, Query: query,
		ContentType: c.Header.Get("Content-Type"), Body: c.raw,
	}))
}

// forwarded keeps a nil *Forwarded from becoming an answer.
func forwarded(f *Forwarded, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

// pass writes WeChat's answer.
func (d *Door) pass(w http.ResponseWriter, f *Forwarded) {
	defer func() { _ = f.Body.Close() }()
	w.Header().Set("Content-Type", f.ContentType)
	w.WriteHeader(f.Status)
	_, _ = io.Copy(w, f.Body) // the caller, or WeChat, may be gone
}
