package compat

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"time"
	"unicode"
)

// answer is what a caller gets.
type answer struct {
	status int
	body   any
	end    func() // of what the answer needs; nil: nothing
}

// problem is an error in WeChat's form.
type problem struct {
	ErrCode int    `json:"errcode"`
	ErrMsg  string `json:"errmsg"`
}

func (a answer) code() int {
	if p, ok := a.body.(problem); ok {
		return p.ErrCode
	}
	return 0
}

// failure is a request that cannot be read, with WeChat's code for it.
type failure struct {
	status  int
	code    int
	message string
}

func (f *failure) Error() string { return f.message }

func refused(code int, message string) error { return &failure{http.StatusOK, code, message} }

// unavailable is never −1: SDKs repeat the POST then.
func unavailable() answer {
	return answer{status: http.StatusServiceUnavailable, body: problem{61450, "system busy, not accepted"}}
}

// unknown is unavailable where the row may have been committed.
func unknown() answer {
	return answer{status: http.StatusServiceUnavailable,
		body: problem{61450, "system busy, outcome unknown: repeat it with the same client_msg_id"}}
}

// described is what may be logged of a panic: its value may quote a request.
func described(p any) string {
	if err, ok := p.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("a %T", p)
}

// maxPath bounds what an error repeats of a path.
const maxPath = 80

// notServed names the path, since an SDK's user sees no more than this.
func notServed(path string) answer {
	path = strings.ToValidUTF8(path[:min(len(path), maxPath)], "")
	path = strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) {
			return -1
		}
		return r
	}, path)
	return answer{status: http.StatusNotFound, body: problem{40066, "invalid url: " + path + " is not served here"}}
}

// pause lets something happen once in a while.
type pause struct {
	now func() time.Time

	mu   sync.Mutex
	last time.Time
}

func (p *pause) over(d time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	if age := now.Sub(p.last); !p.last.IsZero() && age >= 0 && age < d {
		return false
	}
	p.last = now
	return true
}
