package push

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// The events of subscribe messages; official accounts and mini programs have the same.
const (
	EventPopup  = "subscribe_msg_popup_event"  // a person has answered wx.requestSubscribeMessage
	EventChange = "subscribe_msg_change_event" // a person has changed a kept answer in the settings
	EventSent   = "subscribe_msg_sent_event"   // what became of a message after it was accepted
)

// Choice is a person's answer about one template.
type Choice struct {
	OpenID     string
	TemplateID string
	// Result is WeChat's word: accept, reject, ban, filter and others; see Accepted.
	Result string
	Scene  string    // WeChat's number of where the person was asked; "": not told
	At     time.Time // WeChat's time of the event, whole seconds
	Key    string    // the same for all deliveries of this choice and for no other one
}

// Accepted reports whether the person allows messages: acceptWithAudio, acceptWithAlert and
// acceptWithForcePush say so, too.
func (c Choice) Accepted() bool { return strings.HasPrefix(c.Result, "accept") }

// SentReport is what became of one subscribe message after WeChat had accepted it. Only failures
// are promised: that none comes proves nothing.
type SentReport struct {
	OpenID     string
	TemplateID string
	MsgID      int64     // what subscribe/send returned, if it returned one; 0: not told
	Code       int       // 0: delivered
	Status     string    // WeChat's text, at most 64 characters
	At         time.Time // WeChat's time of the event, whole seconds
	Key        string    // the same for all deliveries of this report and for no other one
}

var (
	templateShape = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	resultShape   = regexp.MustCompile(`^[A-Za-z]{1,32}$`)
	numberShape   = regexp.MustCompile(`^[0-9]{1,10}$`)
)

// subscribeEvent reads one of the three events into p.
func (p *Message) subscribeEvent(root *node, at time.Time) error {
	if at.IsZero() || p.OpenID == "" {
		return fmt.Errorf("%w: %s without CreateTime or FromUserName", ErrUnreadable, p.Event)
	}
	wrapper := map[string]string{EventPopup: "SubscribeMsgPopupEvent",
		EventChange: "SubscribeMsgChangeEvent", EventSent: "SubscribeMsgSentEvent"}[p.Event]
	for _, item := range listed(root, wrapper) {
		p.addItem(item, at)
	}
	if len(p.Popup)+len(p.Change)+len(p.Sent) == 0 {
		return fmt.Errorf("%w: %s without a template", ErrUnreadable, p.Event)
	}
	return nil
}

// listed returns the items of an event, whichever shape WeChat or a gateway gives them: a List
// under the event's own name, once or repeated, as an object or an array; an array under that name
// without a List; or a List beside it.
func listed(root *node, wrapper string) []*node {
	var items []*node
	for _, event := range root.all(wrapper) {
		items = append(items, event.all("List")...)
		if event.get("TemplateId") != "" {
			items = append(items, event)
		}
	}
	if len(items) == 0 {
		items = root.all("List")
	}
	return items
}

// addItem takes one template's part. One that cannot be read costs none of the others.
func (p *Message) addItem(item *node, at time.Time) {
	template := item.get("TemplateId")
	if !templateShape.MatchString(template) {
		return
	}
	key := func(kind, last string) string {
		return fmt.Sprintf("%s:%d:%s:%s:%s", kind, at.Unix(), p.OpenID, template, last)
	}
	if p.Event == EventSent {
		code, err := strconv.ParseInt(item.get("ErrorCode"), 10, 32)
		if err != nil {
			return
		}
		msgid := number(item.get("MsgID", "MsgId"))
		report := SentReport{OpenID: p.OpenID, TemplateID: template, MsgID: msgid,
			Code: int(code), Status: normalStatus(item.get("ErrorStatus")), At: at,
			Key: key("sent", strconv.FormatInt(msgid, 10))}
		p.Sent, p.Key = append(p.Sent, report), p.Key+"\x00"+report.Key
		return
	}
	choice := Choice{OpenID: p.OpenID, TemplateID: template, At: at,
		Result: item.get("SubscribeStatusString"), Scene: item.get("PopupScene")}
	if !numberShape.MatchString(choice.Scene) {
		choice.Scene = ""
	}
	switch {
	case !resultShape.MatchString(choice.Result):
		return
	case p.Event == EventPopup:
		choice.Key = key("popup", choice.Scene)
		p.Popup = append(p.Popup, choice)
	default:
		choice.Key = key("change", choice.Result)
		p.Change = append(p.Change, choice)
	}
	p.Key += "\x00" + choice.Key
}

// number is a positive one, or 0.
func number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}
