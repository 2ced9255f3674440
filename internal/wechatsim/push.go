package wechatsim

import (
	"cmp"
	"fmt"
	"strconv"
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
	Lost       float64       // share of the receipts and subscribe events that never come
	Format     Format        // default XML

	// The shares of receipts with another status than success; together at most 1.
	UserBlock, SystemFailed, FreqLimit float64
	Subscribe                          SubscribeEvents
}

// SubscribeEvents is what is not certain about the events of subscribe messages.
type SubscribeEvents struct {
	SentSuccess bool    // subscribe_msg_sent_event comes for successes, too: some accounts see it
	SentFailed  float64 // share of the accepted messages that fail then, with such an event
	// [U]: an answer that the person had kept, so that no pop-up was shown, comes with no event
	KeptSilent bool
}

// Format is the form of a callback's pushes.
type Format string

// The formats: JSON gives the list of an event in several shapes.
const (
	FormatXML       Format = ""
	FormatArray     Format = "array"      // "SubscribeMsgPopupEvent": […]
	FormatObject    Format = "object"     // "SubscribeMsgSentEvent": {"List": {…}}
	FormatList      Format = "list"       // "List": {…}, with several items […]
	FormatListArray Format = "list_array" // "List": […]
	FormatMixed     Format = "mixed"      // one of the JSON shapes, drawn for each push
)

// Validate refuses a format that does not exist.
func (f Format) Validate() error {
	switch f {
	case FormatXML, FormatArray, FormatObject, FormatList, FormatListArray, FormatMixed:
		return nil
	}
	return fmt.Errorf("format: %q is none of array, object, list, list_array, mixed", f)
}

// SetCallback changes where an account's events go; nil: nowhere.
func (s *Server) SetCallback(appid string, callback *Callback) {
	s.mustApp(appid).callback.Store(callback)
}

// Pushes counts the events that the receiver took and those that were given up.
func (s *Server) Pushes() (taken, failed int64) {
	return s.pushes.taken.Load(), s.pushes.failed.Load()
}

// PushesUnderWay returns how many events the receiver has not taken yet and will be delivered again.
func (s *Server) PushesUnderWay() int64 { return s.pushes.open.Load() }

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
	s.push(a, callback, pushEvent{person: person, name: "TEMPLATESENDJOBFINISH", fields: []field{
		{name: "MsgID", text: strconv.FormatInt(msgid, 10), number: true},
		{name: "Status", text: callback.status(hash)},
	}})
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
	fields := []field{{name: "EventKey"}}
	if scene := qrScene(a.personHash(person)); scene > 0 {
		fields = []field{{name: "EventKey", text: fmt.Sprintf("qrscene_%d", scene)},
			{name: "Ticket", text: fmt.Sprintf("gQ%016x", s.draw())}}
	}
	s.push(a, callback, pushEvent{person: person, name: "subscribe", fields: fields})
}

func (s *Server) pushUnfollow(a *app, person int) {
	if callback := a.callback.Load(); callback != nil {
		s.push(a, callback, pushEvent{person: person, name: "unsubscribe",
			fields: []field{{name: "EventKey"}}})
	}
}

// push queues an event.
func (s *Server) push(a *app, callback *Callback, event pushEvent) {
	now := s.clock()
	openid := a.ids.id(event.person)
	hash := s.draw()
	head := pushHead{to: a.original, from: openid, at: now.Unix(), hash: mix(hash ^ 1)}
	if event.platform {
		head.from = a.ids.id(platformPerson)
	}
	delay := callback.Delay
	if callback.Jitter > 0 {
		delay += time.Duration(hash % uint64(callback.Jitter))
	}
	job := pushJob{
		callback: callback, appid: a.id, original: a.original, openid: head.from,
		body:      event.render(head, callback.Format),
		timestamp: fmt.Sprint(now.Unix()), nonce: fmt.Sprint(s.draw() % 1e10), salt: s.draw(),
		attempts: cmp.Or(callback.Attempts, 3),
	}
	s.pushes.add(job, delay)
	if chance(mix(hash), callback.Duplicate) {
		s.pushes.add(job, delay)
	}
}
