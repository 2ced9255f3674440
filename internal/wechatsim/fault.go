package wechatsim

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// FaultKind is a way in which an answer goes wrong.
type FaultKind string

// What happens to a call that a [Fault] hits.
const (
	FaultErrcode FaultKind = "errcode" // answers Code and Message in a good JSON body
	// answers HTTP status Code (default 502) with a short HTML page
	FaultStatus FaultKind = "status"
	FaultHTML   FaultKind = "html"  // answers HTTP 200 with an HTML page
	FaultEmpty  FaultKind = "empty" // answers HTTP 200 with an empty body
	// answers the first half of the body, with a Content-Length that fits it
	FaultTruncate FaultKind = "truncate"
	FaultCut      FaultKind = "cut"   // closes the connection after half of the announced body
	FaultReset    FaultKind = "reset" // resets the connection without an answer
	FaultSlow     FaultKind = "slow"  // answers well, after Delay
)

// Fault makes calls go wrong. The first one that matches a call and is due applies. FaultTruncate,
// FaultCut and FaultSlow always process the call; the others do so only with After: a send that the
// client sees fail is then delivered.
type Fault struct {
	Kind    FaultKind `json:"kind"`
	Path    string    `json:"path,omitempty"`  // endpoint; empty: every one
	AppID   string    `json:"appid,omitempty"` // empty: every account
	After   bool      `json:"after,omitempty"`
	Code    int       `json:"code,omitempty"`    // errcode or HTTP status
	Message string    `json:"message,omitempty"` // errmsg; empty: the usual one of Code
	// hits so many calls and is then gone; 0: stays
	Next        int     `json:"next,omitempty"`
	Probability float64 `json:"probability,omitempty"` // share of the matching calls; 0: all
	// before the call is processed; nanoseconds
	Delay time.Duration `json:"delay,omitempty"`
}

// Validate refuses a kind that does not exist and a probability that is none.
func (f Fault) Validate() error {
	switch f.Kind {
	case FaultErrcode, FaultStatus, FaultHTML, FaultEmpty, FaultTruncate, FaultCut, FaultReset,
		FaultSlow:
	default:
		return fmt.Errorf("fault: there is no kind %q", f.Kind)
	}
	if f.Probability < 0 || f.Probability > 1 {
		return fmt.Errorf("fault: probability %v does not lie between 0 and 1", f.Probability)
	}
	return nil
}

type faultList struct {
	any  atomic.Bool // spares the lock of a server without faults
	mu   sync.Mutex
	list []*Fault
}

func (f *faultList) set(faults []Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = nil
	for _, fault := range faults {
		f.list = append(f.list, &fault)
	}
	f.any.Store(len(f.list) > 0)
}

// SetFault adds a fault to those that are active.
func (s *Server) SetFault(fault Fault) {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.list = append(s.faults.list, &fault)
	s.faults.any.Store(true)
}

// ClearFaults ends all faults.
func (s *Server) ClearFaults() { s.faults.set(nil) }

// pick finds the fault that hits a call, if any, and takes it off the list with its last hit.
func (f *faultList) pick(c *call) *Fault {
	if !f.any.Load() {
		return nil
	}
	appid := c.caller()
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, fault := range f.list {
		if !fault.matches(c, appid) {
			continue
		}
		hit := *fault
		if fault.Next > 0 {
			fault.Next--
			if fault.Next == 0 {
				f.list = append(f.list[:i:i], f.list[i+1:]...)
				f.any.Store(len(f.list) > 0)
			}
		}
		return &hit
	}
	return nil
}

func (f *Fault) matches(c *call, appid string) bool {
	if f.Path != "" && f.Path != c.ep.path || f.AppID != "" && f.AppID != appid {
		return false
	}
	return f.Probability <= 0 || chance(c.s.draw(), f.Probability)
}

// caller finds the account of a call before the call is processed.
func (c *call) caller() string {
	if value := c.query("access_token"); value != "" {
		if token, _ := c.s.tokens.check(value, c.now); token != nil {
			return token.app.id
		}
	}
	if appid := c.query("appid"); appid != "" {
		return appid
	}
	in := scanner{b: c.body}
	in.expect('{')
	for first := true; in.more(first, '}'); first = false {
		if string(in.key()) == "appid" {
			appid, _ := in.stringOr()
			return string(appid)
		}
		in.value()
	}
	return ""
}

const errorPage = "<html>\r\n<head><title>502 Bad " +
	"Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad " +
	"Gateway</h1></center>\r\n</body>\r\n</html>\r\n"

// applyFault answers a call that a fault hits.
func (c *call) applyFault(w http.ResponseWriter, fault *Fault) {
	if !sleep(c.r.Context(), fault.Delay) {
		return
	}
	c.now = c.s.clock() // a call that was held up is judged when it is processed
	switch fault.Kind {
	case FaultSlow, FaultTruncate, FaultCut:
		c.process()
	default:
		if fault.After {
			c.process()
		}
	}
	if fault.Kind != FaultErrcode && fault.Kind != FaultSlow {
		c.ep.countError(string(fault.Kind))
	}
	header := w.Header()
	switch fault.Kind {
	case FaultErrcode:
		c.failFault(fault)
		c.write(w)
	case FaultSlow:
		c.write(w)
	case FaultStatus:
		header.Set("Content-Type", "text/html")
		status := fault.Code
		if status == 0 {
			status = http.StatusBadGateway
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(errorPage))
	case FaultHTML:
		header.Set("Content-Type", "text/html")
		_, _ = w.Write([]byte(errorPage))
	case FaultEmpty:
		header["Content-Type"] = c.ep.contentType
	case FaultTruncate:
		c.out = c.out[:len(c.out)/2]
		c.write(w)
	case FaultCut:
		header["Content-Type"] = c.ep.contentType
		header.Set("Content-Length", strconv.Itoa(len(c.out)))
		_, _ = w.Write(c.out[:len(c.out)/2])
		// so that the half arrives before the connection breaks
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	default:
		reset(w)
	}
}

func (c *call) failFault(fault *Fault) {
	if fault.Message != "" {
		c.failText(fault.Code, fault.Message)
		return
	}
	c.fail(fault.Code)
}

// reset breaks the connection so that the client sees "connection reset by peer", not an orderly
// end.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2, or no real connection
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
