package wechatsim

import "strconv"

// choice is a person's answer about one template.
type choice struct{ template, answer string }

// popup is what became of a tap.
type popup struct {
	chosen []choice // in the pop-up
	kept   []choice // without one, by an earlier answer
	scene  int
}

// pushPopup announces a tap.
func (s *Server) pushPopup(a *app, person int, p popup) {
	callback := a.callback.Load()
	if callback == nil {
		return
	}
	if !callback.Subscribe.KeptSilent {
		p.chosen = append(p.chosen, p.kept...)
	}
	event := pushEvent{person: person, name: "subscribe_msg_popup_event",
		wrapper: "SubscribeMsgPopupEvent"}
	for _, c := range p.chosen {
		event.items = append(event.items, []field{{name: "TemplateId", text: c.template},
			{name: "SubscribeStatusString", text: c.answer},
			{name: "PopupScene", text: strconv.Itoa(p.scene), number: true}})
	}
	s.pushSubscribe(a, callback, event)
}

func (s *Server) pushChange(a *app, person int, rejected []choice) {
	callback := a.callback.Load()
	if callback == nil {
		return
	}
	event := pushEvent{person: person, name: "subscribe_msg_change_event",
		wrapper: "SubscribeMsgChangeEvent"}
	for _, c := range rejected {
		event.items = append(event.items, []field{{name: "TemplateId", text: c.template},
			{name: "SubscribeStatusString", text: c.answer}})
	}
	s.pushSubscribe(a, callback, event)
}

// sentCode is the errcode of a message that failed after WeChat had accepted it.
const sentCode = 20001

// sending is a subscribe message that WeChat has accepted.
type sending struct {
	person   int
	template string
	msgid    int64
	failed   bool
}

// pushSent announces what became of a message.
func (s *Server) pushSent(a *app, m sending) {
	callback := a.callback.Load()
	if callback == nil || !m.failed && !callback.Subscribe.SentSuccess {
		return
	}
	code, status := 0, "success"
	if m.failed {
		code, status = sentCode, "system error"
	}
	s.pushSubscribe(a, callback, pushEvent{person: m.person, name: "subscribe_msg_sent_event",
		wrapper: "SubscribeMsgSentEvent", items: [][]field{{{name: "TemplateId", text: m.template},
			{name: "MsgID", text: strconv.FormatInt(m.msgid, 10), number: true},
			{name: "ErrorCode", text: strconv.Itoa(code), number: true},
			{name: "ErrorStatus", text: status}}}})
}

func (s *Server) pushSubscribe(a *app, callback *Callback, event pushEvent) {
	if len(event.items) > 0 && !chance(s.draw(), callback.Lost) {
		s.push(a, callback, event)
	}
}

// Authorize pushes an event about a person's data: user_info_modified, user_authorization_revoke or
// user_authorization_cancellation. With the last one the person is gone: nothing is allowed any
// more.
func (s *Server) Authorize(appid string, person int, event, revoked string) {
	a := s.mustApp(appid)
	if event == "user_authorization_cancellation" {
		a.grants.forget(person)
	}
	callback := a.callback.Load()
	if callback == nil {
		return
	}
	s.push(a, callback, pushEvent{person: person, platform: true, numbers: true, name: event,
		fields: []field{{name: "OpenID", text: a.ids.id(person)},
			{name: "UnionID", text: a.unionID(person)}, {name: "AppID", text: a.id},
			{name: "RevokeInfo", text: revoked}}})
}

func (g *grants) forget(person int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key := range g.states {
		if key.person == person {
			delete(g.states, key)
		}
	}
}

// Punish pushes a wxa_punish_event of a type: 2 functions are banned, 3 off the shelf, 4 the
// account is banned. It changes nothing else; a Fault lets calls be refused.
func (s *Server) Punish(appid string, kind int, functions ...string) {
	a := s.mustApp(appid)
	callback := a.callback.Load()
	if callback == nil {
		return
	}
	// The detail is JSON written as a text, also within JSON.
	detail := []byte(`{"banned_function_names":[`)
	for i, name := range functions {
		if i > 0 {
			detail = append(detail, ',')
		}
		detail = appendString(detail, name)
	}
	detail = append(detail, "]}"...)
	s.push(a, callback, pushEvent{platform: true, numbers: true, name: "wxa_punish_event",
		fields: []field{{name: "punish_id", text: strconv.FormatUint(s.draw()%1e8, 10)},
			{name: "appid", text: a.id}, {name: "illegal_reason", text: "存在诱导分享行为"},
			{name: "detail", text: string(detail)},
			{name: "event_type", text: strconv.Itoa(kind), number: true}}})
}
