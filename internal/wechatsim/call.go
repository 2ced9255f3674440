package wechatsim

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxBody bounds a request's body. WeChat's own bound is not documented; a client that sends more
// is broken.
const maxBody = 2 << 20

// call is one request on its way through the simulator; it is pooled, so nothing in it may be kept.
type call struct {
	s       *Server
	r       *http.Request
	ep      *endpoint
	app     *app // once the token or the appid is known
	now     time.Time
	body    []byte
	out     []byte
	code    int // errcode of the answer
	send    sendRequest
	openids [][]byte
	people  []int

	serial     string // the person to whom no other call may go meanwhile
	concurrent bool   // another call to that person is under way
}

func (c *call) init(s *Server, r *http.Request, ep *endpoint) {
	c.s, c.r, c.ep, c.app, c.now = s, r, ep, nil, s.clock()
	c.body, c.out, c.code = c.body[:0], c.out[:0], 0
	c.serial, c.concurrent = "", false
}

func (c *call) release() {
	s := c.s
	c.s, c.r, c.ep, c.app = nil, nil, nil, nil
	c.send.reset()
	s.calls.Put(c)
}

func (c *call) readBody() bool {
	size := int(min(c.r.ContentLength, maxBody))
	if cap(c.body) < size {
		c.body = make([]byte, 0, size)
	}
	c.body = c.body[:size]
	_, err := io.ReadFull(c.r.Body, c.body)
	return err == nil
}

// process runs the checks in the platform's order (reference §15: the token before the body) and
// then the endpoint.
func (c *call) process() {
	ep := c.ep
	switch {
	case ep.method != "" && c.r.Method != ep.method && ep.method == http.MethodPost:
		c.fail(43002)
		return
	case ep.method != "" && c.r.Method != ep.method:
		c.fail(43001)
		return
	}
	if ep.auth != authNone && !c.authorize() {
		return
	}
	if ep.auth != authNone && !c.charge() {
		return
	}
	if ep.method == http.MethodPost && len(c.body) == 0 && !ep.noBody {
		c.fail(44002)
		return
	}
	if c.r.Header["Content-Encoding"] != nil {
		c.fail(40221)
		return
	}
	ep.handle(c)
}

// authorize resolves the access token.
func (c *call) authorize() bool {
	value := c.query("access_token")
	if value == "" {
		c.fail(41001)
		return false
	}
	token, code := c.s.tokens.check(value, c.now)
	if code != 0 {
		c.fail(code)
		return false
	}
	c.app = token.app
	wrong := c.ep.auth == authOfficial && c.app.mini || c.ep.auth == authMini && !c.app.mini
	if wrong {
		c.fail(c.ep.wrongKind)
	}
	return !wrong
}

// charge counts the call against the account's quota.
func (c *call) charge() bool {
	code := c.app.quota.charge(c.ep.index, c.now)
	if code != 0 {
		c.fail(code)
	}
	return code == 0
}

// query returns a parameter of the URL. It does not build url.Values: a token is all that the busy
// paths need.
func (c *call) query(name string) string {
	for raw := c.r.URL.RawQuery; raw != ""; {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		key, value, _ := strings.Cut(pair, "=")
		if key != name {
			continue
		}
		if strings.ContainsAny(value, "%+") {
			value, _ = url.QueryUnescape(value)
		}
		return value
	}
	return ""
}

// fail answers an errcode with its usual text.
func (c *call) fail(code int) { c.failText(code, cmp.Or(c.s.texts[code], "error")) }

// failText answers an errcode, the text followed by the request id as this family of endpoints
// writes it.
func (c *call) failText(code int, text string) {
	if c.ep.sns {
		text += ","
	}
	rid := c.s.newRID(c.now)
	c.code = code
	c.out = append(c.out[:0], `{"errcode":`...)
	c.out = strconv.AppendInt(c.out, int64(code), 10)
	c.out = append(c.out, `,"errmsg":`...)
	c.out = appendString(c.out, text+" rid: "+rid)
	c.out = append(c.out, '}')
	c.s.rids.add(rid, c)
}

// ok answers {"errcode":0,"errmsg":"ok"}.
func (c *call) ok() { c.out = append(c.out, `{"errcode":0,"errmsg":"ok"}`...) }

// json answers a value of one of the rarer endpoints, where encoding/json is fast enough.
func (c *call) json(value any) {
	buffer := &sliceWriter{c.out}
	encoder := json.NewEncoder(buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		panic("wechatsim: encoding an answer: " + err.Error()) // only own structs are passed
	}
	c.out = buffer.b[:len(buffer.b)-1] // without the encoder's line break
}

// bind decodes the body of one of the rarer requests and answers 47001 if it is not of that shape.
func (c *call) bind(target any) bool {
	if err := json.Unmarshal(c.body, target); err != nil {
		c.fail(47001)
		return false
	}
	return true
}

func (c *call) write(w http.ResponseWriter) {
	if c.code != 0 {
		c.ep.countError(strconv.Itoa(c.code))
	}
	header := w.Header()
	header["Content-Type"] = c.ep.contentType
	header["Content-Length"] = []string{strconv.Itoa(len(c.out))}
	_, _ = w.Write(c.out) // the client may be gone, which is its business
}

// newRID makes a request id: three groups of eight hex digits, the first of them the unix time.
func (s *Server) newRID(now time.Time) string {
	const digits = "0123456789abcdef"
	random := s.draw()
	words := [3]uint32{uint32(now.Unix()), uint32(random >> 32), uint32(random)}
	rid := make([]byte, 0, 26)
	for i, word := range words {
		if i > 0 {
			rid = append(rid, '-')
		}
		for shift := 28; shift >= 0; shift -= 4 {
			rid = append(rid, digits[word>>shift&15])
		}
	}
	return string(rid)
}

// appendString writes a JSON string. Only texts with quotes or control characters pay for
// encoding/json.
func appendString(dst []byte, text string) []byte {
	for i := range len(text) {
		if text[i] < 0x20 || text[i] == '"' || text[i] == '\\' {
			quoted, _ := json.Marshal(text) // a string always encodes
			return append(dst, quoted...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, text...)
	return append(dst, '"')
}

type sliceWriter struct{ b []byte }

func (w *sliceWriter) Write(p []byte) (int, error) {
	w.b = append(w.b, p...)
	return len(p), nil
}

// sleep waits and reports whether the client was still there at the end.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
