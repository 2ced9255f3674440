package push

import (
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

// Message is one verified message of WeChat's to us. At most one of the fields between OpenID and
// Key is set; all other events, and what people write to the account, have none.
type Message struct {
	Event   string // WeChat's name of it; "" of a message that a person wrote
	OpenID  string // whom it concerns, "" where it does not say
	Receipt *Receipt
	Follow  *FollowEvent
	Popup   []Choice     // answers of a person who was asked, one for each template
	Change  []Choice     // answers that a person has changed in the settings
	Sent    []SentReport // what became of subscribe messages
	// Authorization: the person's data have changed, or must no longer be used.
	Authorization *Authorization
	Punishment    *Punishment
	// Key is the same for all deliveries of one push and for no other one. Person and time alone
	// would confuse an unsubscribe and a subscribe of the same second.
	Key string
}

// openidShape bounds what goes on to the database; WeChat's have 28 of these characters.
var openidShape = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func readPush(root *node) (Message, error) {
	event := root.get("Event")
	if root.get("MsgType") != "event" {
		event = ""
	}
	p := Message{Event: strings.ToValidUTF8(event[:min(len(event), maxEvent)], ""),
		OpenID: person(root, event)}
	at := createTime(root)
	msgid := root.get("MsgID", "MsgId") // receipts have the first, messages the second
	p.Key = strings.Join([]string{p.OpenID, strconv.FormatInt(at.Unix(), 10), p.Event, msgid}, "\x00")
	switch {
	case event == EventReceipt:
		status := normalStatus(root.get("Status"))
		id := number(msgid)
		if id == 0 || status == "" || p.OpenID == "" {
			return Message{}, fmt.Errorf("%w: a receipt without MsgID, Status or FromUserName",
				ErrUnreadable)
		}
		p.Receipt = &Receipt{OpenID: p.OpenID, MsgID: id, Status: status, At: at}
	case event == EventSubscribe, event == EventUnsubscribe:
		if at.IsZero() || p.OpenID == "" {
			return Message{}, fmt.Errorf("%w: a follow without CreateTime or FromUserName", ErrUnreadable)
		}
		p.Follow = &FollowEvent{OpenID: p.OpenID, Followed: event == EventSubscribe, At: at}
	case event == EventPopup, event == EventChange, event == EventSent:
		if err := p.subscribeEvent(root, at); err != nil {
			return Message{}, err
		}
	case isAuthorization(event):
		p.authorizationEvent(root, at)
	case event == EventPunished:
		p.punishment(root, at)
	}
	return p, nil
}

// person is whom the push concerns. Some events come from a platform account.
func person(root *node, event string) string {
	switch {
	case isAuthorization(event):
		return id(root.get("OpenID"))
	case event == EventPunished:
		return ""
	}
	return id(root.get("FromUserName"))
}

// createTime is CreateTime, if it is one that a TIMESTAMP of every server holds.
func createTime(root *node) time.Time {
	seconds := number(root.get("CreateTime"))
	if seconds == 0 || seconds >= math.MaxInt32 {
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
