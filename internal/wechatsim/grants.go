package wechatsim

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// grants are what people allow a mini program to send them. WeChat has no call that shows it; the
// control interface has one, so that a ledger can be compared with the truth.
type grants struct {
	mu      sync.Mutex
	states  map[grantKey]*grant
	initial int // messages that everybody allows from the start
}

type grantKey struct {
	person   int
	template string
}

// grant is what a person allows of one template.
type grant struct {
	left     int    // messages of a one-time template
	forever  bool   // a long-term template is allowed
	kept     string // the answer that the person keeps, or ""
	accepted int64
	sent     int64
}

// GrantState is the truth about what a person allows of a template.
type GrantState struct {
	OpenID     string `json:"openid"`
	Person     int    `json:"person"`
	TemplateID string `json:"template_id"`
	LongTerm   bool   `json:"long_term"`
	Left       int    `json:"left"`    // messages that may still come; long-term: 1 or 0
	Kept       string `json:"kept"`    // the answer that needs no pop-up; "": none
	Accepts    int64  `json:"accepts"` // all there were
	Sent       int64  `json:"sent"`    // messages that WeChat took
}

// of returns a person's state of a template. The lock is held.
func (g *grants) of(person int, template string) *grant {
	key := grantKey{person, template}
	if g.states == nil {
		g.states = make(map[grantKey]*grant)
	}
	if g.states[key] == nil {
		g.states[key] = &grant{left: g.initial}
	}
	return g.states[key]
}

// take uses up one message and reports whether it was allowed.
func (g *grants) take(person int, t *template) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	state := g.of(person, t.ID)
	switch {
	case state.forever:
	case state.left > 0:
		state.left--
	default:
		return false
	}
	state.sent++
	return true
}

// accept adds messages; a long-term template needs one acceptance for all.
func (g *grant) accept(longTerm bool, messages int) {
	g.accepted += int64(messages)
	if longTerm {
		g.forever = messages > 0 || g.forever
		return
	}
	g.left += messages
}

// Grant lets a mini-program user accept so many more messages of a template, without an event: an
// accept whose event never comes. It panics on a template that does not exist.
func (s *Server) Grant(appid string, person int, templateID string, messages int) {
	a := s.mustApp(appid)
	t := a.template([]byte(templateID))
	if t == nil {
		panic(fmt.Sprintf("wechatsim: %s has no template %q", appid, templateID))
	}
	a.grants.mu.Lock()
	defer a.grants.mu.Unlock()
	a.grants.of(person, templateID).accept(t.longTerm, messages)
}

// Grants returns what people allow a mini program to send, by person and template.
func (s *Server) Grants(appid string) []GrantState {
	a := s.mustApp(appid)
	a.grants.mu.Lock()
	defer a.grants.mu.Unlock()
	list := make([]GrantState, 0, len(a.grants.states))
	for key, g := range a.grants.states {
		state := GrantState{OpenID: a.ids.id(key.person), Person: key.person,
			TemplateID: key.template, LongTerm: a.template([]byte(key.template)).longTerm,
			Left: g.left, Kept: g.kept, Accepts: g.accepted, Sent: g.sent}
		if g.forever {
			state.Left = 1
		}
		list = append(list, state)
	}
	slices.SortFunc(list, func(a, b GrantState) int {
		return cmp.Or(cmp.Compare(a.Person, b.Person), strings.Compare(a.TemplateID, b.TemplateID))
	})
	return list
}

// Tap is one call of wx.requestSubscribeMessage, and what the person does.
type Tap struct {
	Templates []string // up to three, all one-time or all long-term
	// Answer is what the person chooses for each: accept (also ""), acceptWithAudio,
	// acceptWithAlert, acceptWithForcePush, reject or ban. Where a person keeps an answer, that one
	// counts.
	Answer string
	Keep   bool // 总是保持以上选择，不再询问: from now on there is no pop-up
	Scene  int  // of the event
}

// Subscribe plays a tap and pushes its event. It returns what the mini program learns: an answer by
// template, or an error with the code of the call's fail.
func (s *Server) Subscribe(appid string, person int, tap Tap) (map[string]string, error) {
	a := s.mustApp(appid)
	asked, err := a.tapped(tap)
	if err != nil {
		return nil, err
	}
	results := make(map[string]string, len(tap.Templates))
	titles := make(map[string]bool)
	became := popup{scene: tap.Scene}
	a.grants.mu.Lock()
	for _, t := range asked {
		if titles[t.Title] {
			results[t.ID] = "filter" // of templates with one title WeChat shows one
			continue
		}
		titles[t.Title] = true
		state := a.grants.of(person, t.ID)
		answer := cmp.Or(state.kept, tap.Answer, "accept")
		results[t.ID] = answer
		if strings.HasPrefix(answer, "accept") {
			state.accept(t.longTerm, 1) // also without a pop-up
		}
		if state.kept != "" {
			became.kept = append(became.kept, choice{t.ID, answer})
			continue
		}
		if became.chosen = append(became.chosen, choice{t.ID, answer}); tap.Keep {
			state.kept = answer
		}
	}
	a.grants.mu.Unlock()
	s.pushPopup(a, person, became)
	return results, nil
}

// tapped are the templates of a tap.
func (a *app) tapped(tap Tap) ([]*template, error) {
	if len(tap.Templates) == 0 || len(tap.Templates) > 3 {
		return nil, fmt.Errorf("fail 20003: %d templates, a tap has one to three",
			len(tap.Templates))
	}
	var asked []*template
	for _, id := range tap.Templates {
		t := a.template([]byte(id))
		if t == nil {
			return nil, fmt.Errorf("fail 20001: no template %q", id)
		}
		if len(asked) > 0 && asked[0].longTerm != t.longTerm {
			return nil, fmt.Errorf("fail 20002: a tap is for one-time or for long-term templates")
		}
		asked = append(asked, t)
	}
	return asked, nil
}

// SwitchOff lets a person reject templates in the mini program's settings, where an answer stays
// kept, and pushes the event. What was allowed before is gone.
func (s *Server) SwitchOff(appid string, person int, templateIDs ...string) {
	a := s.mustApp(appid)
	var rejected []choice
	a.grants.mu.Lock()
	for _, id := range templateIDs {
		state := a.grants.of(person, id)
		state.left, state.forever, state.kept = 0, false, "reject"
		rejected = append(rejected, choice{id, "reject"})
	}
	a.grants.mu.Unlock()
	s.pushChange(a, person, rejected)
}

// SwitchOn lets a person allow templates in the settings. That earns no message: the mini program
// has to call wx.requestSubscribeMessage, which then shows no pop-up. There is no event.
func (s *Server) SwitchOn(appid string, person int, templateIDs ...string) {
	g := &s.mustApp(appid).grants
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, id := range templateIDs {
		g.of(person, id).kept = "accept"
	}
}
