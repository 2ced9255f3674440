package push

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The known statuses of a receipt, as this program spells them: WeChat writes one of them with a
// space behind the colon. The last is not documented. Others may come, and are passed on.
const (
	ReceiptSuccess      = "success"
	ReceiptUserBlock    = "failed:user block"
	ReceiptSystemFailed = "failed:system failed"
	ReceiptFreqLimit    = "failed:freq limit"
)

// The events that are read; WeChat's own spelling.
const (
	EventReceipt     = "TEMPLATESENDJOBFINISH"
	EventSubscribe   = "subscribe"
	EventUnsubscribe = "unsubscribe"
)

const (
	maxStatus = 64 // runes kept of a receipt's status
	maxEvent  = 64 // bytes kept of an event's name
)

// Receipt is what became of one template message.
type Receipt struct {
	OpenID string
	MsgID  int64 // what template/send returned
	// Status is one of the constants, or something new of at most 64 characters. success is no
	// proof that the person has seen it, and user block has been seen of people who refuse nothing.
	Status string
	At     time.Time // WeChat's time of the event, whole seconds; zero: not told
}

// FollowEvent says that a person has followed or unfollowed the account.
type FollowEvent struct {
	OpenID   string
	Followed bool      // false: unfollowed
	At       time.Time // WeChat's time of the event, whole seconds
}

// Message is one verified message of WeChat's to us. At most one of Receipt and Follow is set; all
// other events, and what people write to the account, have neither.
type Message struct {
	Event   string // WeChat's name of it; "" of a message that a person wrote
	OpenID  string // whom it concerns, "" where it does not say
	Receipt *Receipt
	Follow  *FollowEvent
	// Key is the same for all deliveries of one push and for no other one. Person and time alone
	// would confuse an unsubscribe and a subscribe of the same second.
	Key string
}

// pushWire is a push as XML. Receipts have a MsgID, messages a MsgId.
type pushWire struct {
	FromUserName string
	CreateTime   string
	MsgType      string
	Event        string
	MsgID        string
	MsgId        string
	Status       string
	OpenID       string
}

// openidShape bounds what goes on to the database; WeChat's have 28 of these characters.
var openidShape = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func readPush(body []byte) (Message, error) {
	var wire pushWire
	if err := xml.Unmarshal(body, &wire); err != nil {
		return Message{}, fmt.Errorf("%w: the content is not XML", ErrUnreadable)
	}
	event := strings.TrimSpace(wire.Event)
	if strings.TrimSpace(wire.MsgType) != "event" {
		event = ""
	}
	p := Message{Event: strings.ToValidUTF8(event[:min(len(event), maxEvent)], ""),
		OpenID: wire.person(event)}
	at := wire.at()
	msgid := strings.TrimSpace(cmp.Or(wire.MsgID, wire.MsgId))
	p.Key = strings.Join([]string{p.OpenID, strconv.FormatInt(at.Unix(), 10), p.Event, msgid}, "\x00")
	switch event {
	case EventReceipt:
		id, err := strconv.ParseInt(msgid, 10, 64)
		status := normalStatus(wire.Status)
		if err != nil || id <= 0 || status == "" || p.OpenID == "" {
			return Message{}, fmt.Errorf("%w: a receipt without MsgID, Status or FromUserName",
				ErrUnreadable)
		}
		p.Receipt = &Receipt{OpenID: p.OpenID, MsgID: id, Status: status, At: at}
	case EventSubscribe, EventUnsubscribe:
		if at.IsZero() || p.OpenID == "" {
			return Message{}, fmt.Errorf("%w: a follow without CreateTime or FromUserName", ErrUnreadable)
		}
		p.Follow = &FollowEvent{OpenID: p.OpenID, Followed: event == EventSubscribe, At: at}
	}
	return p, nil
}

// person is whom the push concerns. Changes of authorisation come from a platform account.
func (w *pushWire) person(event string) string {
	openid := strings.TrimSpace(w.FromUserName)
	if strings.HasPrefix(event, "user_authorization_") || event == "user_info_modified" {
		openid = strings.TrimSpace(w.OpenID)
	}
	if !openidShape.MatchString(openid) {
		return ""
	}
	return openid
}

// at is CreateTime, if it is one that a TIMESTAMP of every server holds.
func (w *pushWire) at() time.Time {
	seconds, err := strconv.ParseInt(strings.TrimSpace(w.CreateTime), 10, 64)
	if err != nil || seconds <= 0 || seconds >= math.MaxInt32 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

// normalStatus turns "failed: system failed" into "failed:system failed".
func normalStatus(status string) string {
	words := strings.Fields(status)
	status = strings.ReplaceAll(strings.ReplaceAll(strings.Join(words, " "), ": ", ":"), " :", ":")
	if utf8.RuneCountInString(status) <= maxStatus {
		return status
	}
	return string([]rune(status)[:maxStatus])
}

// cleanXML takes out what XML does not allow and WeChat sends nevertheless, such as U+0002 in what
// people write; for encoding/xml one such character makes the whole push unreadable.
func cleanXML(body []byte) []byte {
	return bytes.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n' || r == '\r':
			return r
		case r < ' ' || r == 0xFFFE || r == 0xFFFF:
			return -1
		}
		return r // invalid UTF-8 comes as U+FFFD, which is allowed
	}, body)
}
