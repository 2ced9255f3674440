package wechatsim

import "strings"

// SubscribeTemplate is a template of a mini program's list. Keywords and their limits are read out
// of Content.
type SubscribeTemplate struct {
	ID       string              `json:"priTmplId"` // 43 characters
	Title    string              `json:"title"`
	Content  string              `json:"content"` // "…{{thing1.DATA}}…"
	Example  string              `json:"example"`
	LongTerm bool                `json:"-"`
	Values   map[string][]string `json:"-"` // the listed values of enum keywords
	Disabled bool                `json:"-"` // sends are answered 43116
}

// StandardSubscribeTemplates are those of mini programs that list none: [0] a one-time template
// with four keywords, [1] a one-time one with a single keyword, [2] a long-term one, [3] one with
// an enumeration.
func StandardSubscribeTemplates() []SubscribeTemplate {
	return []SubscribeTemplate{
		{ID: "hD-ixGOhYmUfjOnI8MCzQMPshzGVeux_2vzyvQu7O68", Title: "订单支付成功通知",
			Content: "商品名称:{{thing1.DATA}}\n支付时间:{{time2.DATA}}\n支付金额:{{amount3.DATA}}\n" +
				"订单编号:{{character_string4.DATA}}\n",
			Example: "商品名称:示例商品\n支付时间:2026-01-02 15:04\n支付金额:39.80元\n订单编号:A-1024\n"},
		{ID: "VRR0UEO9VJOLs0MHlU0OilqX6MVFDwH3_3gz3Oc0NIc", Title: "服务进度提醒",
			Content: "进度:{{thing1.DATA}}\n", Example: "进度:已完成\n"},
		{ID: "9nLIlbOQZC5Y89AZteFEux3WCXRRRG5Wfzkpssu4bLI", Title: "缴费提醒", LongTerm: true,
			Content: "缴费项目:{{thing1.DATA}}\n金额:{{amount2.DATA}}\n",
			Example: "缴费项目:水费\n金额:10元\n"},
		{ID: "BEwX0BO-T3MqK3Uc5oTU3CGBqzjpndk2jzUf7VfExd8", Title: "取餐提醒",
			Content: "餐品:{{thing1.DATA}}\n规格:{{enum2.DATA}}\n", Example: "餐品:咖啡\n规格:大杯\n",
			Values: map[string][]string{"enum2": {"大杯", "中杯", "小杯"}}},
	}
}

func newSubscribeTemplate(t SubscribeTemplate) *template {
	parsed := &template{longTerm: t.LongTerm, Template: Template{ID: t.ID, Title: t.Title,
		Content: t.Content, Example: t.Example, Values: t.Values}}
	parsed.banned.Store(t.Disabled)
	for _, match := range placeholder.FindAllStringSubmatch(t.Content, -1) {
		name := match[1]
		parsed.keys = append(parsed.keys, keyword{name: name, listed: t.Values[name],
			rule: subscribeRule(strings.TrimRight(name, "0123456789"))})
	}
	return parsed
}

// subscribeRule is keywordRule where subscribe messages have the same limits. Of short_thing nobody
// knows the limit [U]; of an unknown kind everything passes.
func subscribeRule(kind string) func(value string) bool {
	switch kind {
	case "amount":
		return func(v string) bool { return isAmount(v, 10) }
	case "short_thing":
		return func(v string) bool { return atMost(v, 10) && all(v, printable) }
	}
	if rule := keywordRule(kind); rule != nil {
		return rule
	}
	return func(string) bool { return true }
}

// enumValues is one element of a template's keywordEnumValueList.
type enumValues struct {
	Keyword string   `json:"keywordCode"`
	Values  []string `json:"enumValueList"`
}

type listedTemplate struct {
	SubscribeTemplate
	Type  int          `json:"type"` // 2 one-time, 3 long-term
	Enums []enumValues `json:"keywordEnumValueList,omitempty"`
}

// subscribeTemplates is newtmpl/gettemplate.
func (c *call) subscribeTemplates() {
	list := make([]listedTemplate, 0, len(c.app.templates))
	for _, t := range c.app.templates {
		shown := listedTemplate{SubscribeTemplate: SubscribeTemplate{ID: t.ID, Title: t.Title,
			Content: t.Content, Example: t.Example}, Type: 2}
		if t.longTerm {
			shown.Type = 3
		}
		for _, key := range t.keys { // in the order of the text
			if key.listed != nil {
				shown.Enums = append(shown.Enums, enumValues{key.name + ".DATA", key.listed})
			}
		}
		list = append(list, shown)
	}
	c.json(map[string]any{"errcode": 0, "errmsg": "ok", "data": list})
}

// subscribeSend delivers a subscribe message, if the person allows it. There is no client_msg_id:
// each accepted message arrives.
func (c *call) subscribeSend() {
	if !c.parseSend() {
		return
	}
	t := c.app.template(c.send.template)
	person, known := c.app.ids.person(c.send.touser)
	code := 0
	switch {
	case t == nil:
		code = 40037
	case t.banned.Load():
		code = 43116
	case !known:
		code = 40003
	case c.concurrent:
		code = 43108
	case !c.app.hasPage(string(c.send.page)):
		code = 41030
	}
	if code != 0 {
		c.fail(code)
		return
	}
	if !c.checkData(t) {
		return
	}
	if c.app.people.of(person).Refuses || !c.app.grants.take(person, t) {
		c.fail(43101)
		return
	}
	msgid := firstMsgID + c.s.messages.Add(1)*1048576
	failed := false
	if callback := c.app.callback.Load(); callback != nil {
		failed = chance(c.s.draw(), callback.Subscribe.SentFailed)
	}
	if !failed { // else the phone never gets it
		c.app.store.add(c, person, msgid)
	}
	if c.app.noMsgID {
		c.ok()
	} else {
		c.answerMsgID(msgid)
	}
	c.s.pushSent(c.app, sending{person, t.ID, msgid, failed})
}

// hasPage reports whether a page is of the published version; none is one, too.
func (a *app) hasPage(page string) bool {
	path, _, _ := strings.Cut(page, "?")
	return page == "" || a.pages == nil || a.pages[path]
}

// enter marks a call to a person as under way. A second one meanwhile is concurrent: WeChat refuses
// it with 43108.
func (c *call) enter() {
	in := scanner{b: c.body}
	in.expect('{')
	for first := true; in.more(first, '}'); first = false {
		if string(in.key()) == "touser" {
			to, _ := in.stringOr()
			c.serial = string(to)
			break
		}
		in.value()
	}
	if c.serial == "" {
		return
	}
	if _, busy := c.s.underWay.LoadOrStore(c.serial, struct{}{}); busy {
		c.concurrent, c.serial = true, ""
	}
}

func (c *call) leave() {
	if c.serial != "" {
		c.s.underWay.Delete(c.serial)
	}
}
