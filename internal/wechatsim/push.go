package wechatsim

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// Callback is where an account's events are pushed to, and how well the platform does it (reference
// §10).
type Callback struct {
	URL, Token string
	AESKey     string        // EncodingAESKey, 43 characters; wanted by Secure and Compatible
	Secure     bool          // only the encrypted form
	Compatible bool          // both forms in one body
	Delay      time.Duration // from the cause to the push
	Jitter     time.Duration // up to so much more, by which pushes change their order
	Attempts   int           // deliveries of one push until it is given up; default 3
	RetryWait  time.Duration // between them; default 5 s
	Duplicate  float64       // share of the pushes that arrive twice although they were answered
	Lost       float64       // share of the receipts that never come

	// The shares of receipts with another status than success; together at most 1.
	UserBlock, SystemFailed, FreqLimit float64
}

// SetCallback changes where an account's events go; nil: nowhere.
func (s *Server) SetCallback(appid string, callback *Callback) {
	s.mustAccount(appid).callback.Store(callback)
}

// Pushes counts the events that the receiver took and those that were given up.
func (s *Server) Pushes() (taken, failed int64) {
	return s.pushes.taken.Load(), s.pushes.failed.Load()
}

// pushReceipt announces a message's end.
func (s *Server) pushReceipt(a *app, person int, msgid int64) {
	callback := a.callback.Load()
	if callback == nil {
		return
	}
	hash := s.draw()
	if chance(mix(hash), callback.Lost) {
		return
	}
	s.push(a, callback, pushEvent{person, "TEMPLATESENDJOBFINISH",
		fmt.Sprintf("<MsgID>%d</MsgID>\n<Status><![CDATA[%s]]></Status>\n", msgid,
			callback.status(hash))})
}

// status draws the outcome, spelled as the platform spells it: one with a space behind the colon,
// two without.
func (c *Callback) status(hash uint64) string {
	switch {
	case chance(hash, c.UserBlock):
		return "failed:user block"
	case chance(hash, c.UserBlock+c.SystemFailed):
		return "failed: system failed"
	case chance(hash, c.UserBlock+c.SystemFailed+c.FreqLimit):
		return "failed:freq limit"
	}
	return "success"
}

func (s *Server) pushFollow(a *app, person int) {
	callback := a.callback.Load()
	if callback == nil {
		return
	}
	rest := "<EventKey><![CDATA[]]></EventKey>\n"
	if scene := qrScene(a.personHash(person)); scene > 0 {
		rest = fmt.Sprintf("<EventKey><![CDATA[qrscene_%d]]></EventKey>\n<Ticket><![CDATA[gQ%016x]]></Ticket>\n", scene, s.draw())
	}
	s.push(a, callback, pushEvent{person, "subscribe", rest})
}

func (s *Server) pushUnfollow(a *app, person int) {
	if callback := a.callback.Load(); callback != nil {
		s.push(a, callback, pushEvent{person, "unsubscribe", "<EventKey><![CDATA[]]></EventKey>\n"})
	}
}

// pushEvent is what differs between events: who, what, and the elements beyond the common ones.
type pushEvent struct {
	person     int
	name, rest string
}

// push queues an event. The line breaks between the elements are those of real pushes.
func (s *Server) push(a *app, callback *Callback, event pushEvent) {
	now := s.clock()
	openid := a.ids.id(event.person)
	var body strings.Builder
	fmt.Fprintf(&body, "<xml><ToUserName><![CDATA[%s]]></ToUserName>\n<FromUserName><![CDATA[%s]]></FromUserName>\n", a.original, openid)
	fmt.Fprintf(&body, "<CreateTime>%d</CreateTime>\n<MsgType><![CDATA[event]]></MsgType>\n<Event><![CDATA[%s]]></Event>\n%s</xml>",
		now.Unix(), event.name, event.rest)
	hash := s.draw()
	delay := callback.Delay
	if callback.Jitter > 0 {
		delay += time.Duration(hash % uint64(callback.Jitter))
	}
	job := pushJob{
		callback: callback, appid: a.id, original: a.original, openid: openid, body: body.String(),
		timestamp: fmt.Sprint(now.Unix()), nonce: fmt.Sprint(s.draw() % 1e10), salt: s.draw(),
		attempts: cmp.Or(callback.Attempts, 3),
	}
	s.pushes.add(job, delay)
	if chance(mix(hash), callback.Duplicate) {
		s.pushes.add(job, delay)
	}
}
