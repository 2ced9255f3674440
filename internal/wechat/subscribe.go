package wechat

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
)

// SubscribeMessage is one subscribe message to one user of a mini program.
type SubscribeMessage struct {
	ToUser     string // openid in this mini program
	TemplateID string // of the mini program's own list
	// Page is where a tap leads: a path in this mini program, perhaps with a query; empty: nowhere.
	Page string
	// State is the version that Page opens in: developer, trial or formal. Only testers can open
	// the first two. Empty: WeChat's default, formal.
	State string
	Lang  string // of the words around the message; empty: WeChat's default, zh_CN
	// Data is {"thing1":{"value":"x"}}: valid JSON, raw UTF-8 without \u escapes. Not checked here.
	Data json.RawMessage
}

// SendSubscribe makes exactly one POST, whatever happens. Success means accepted, not delivered.
// The msgid, which a subscribe_msg_sent_event will carry, is 0 where WeChat gives none. There is no
// client_msg_id: if the Error is Uncertain, a repetition may reach the person a second time.
//
// https://developers.weixin.qq.com/miniprogram/dev/OpenApiDoc/mp-message-management/subscribe-message/sendMessage.html
func (c *Client) SendSubscribe(ctx context.Context, m SubscribeMessage) (msgid int64, err error) {
	token, err := c.tokens.get(ctx)
	if err != nil {
		return 0, err
	}
	var sent subscribeAnswer
	r := request{endpoint: sendSubscribeEndpoint, token: token.value, body: m.json(), into: &sent}
	err = c.once(ctx, r)
	c.settleToken(token, err)
	return int64(sent), err
}

func (m *SubscribeMessage) json() []byte {
	b := make([]byte, 0, 160+len(m.ToUser)+len(m.TemplateID)+len(m.Page)+len(m.Data))
	b = appendString(append(b, `{"touser":`...), m.ToUser)
	b = appendString(append(b, `,"template_id":`...), m.TemplateID)
	for _, option := range [...]struct{ name, value string }{
		{"page", m.Page}, {"miniprogram_state", m.State}, {"lang", m.Lang},
	} {
		if option.value == "" {
			continue
		}
		b = append(append(append(b, `,"`...), option.name...), `":`...)
		b = appendString(b, option.value)
	}
	b = append(b, `,"data":`...)
	if len(m.Data) == 0 {
		b = append(b, `{}`...)
	}
	return append(append(b, m.Data...), '}')
}

// subscribeAnswer is the msgid of a subscribe message, 0: none.
type subscribeAnswer int64

// decode insists on the errcode, and not on the msgid, which only some answers have: one that
// cannot be read must not put a message in doubt that WeChat has accepted.
func (a *subscribeAnswer) decode(body []byte) error {
	var wire struct {
		Code  *looseInt       `json:"errcode"`
		MsgID json.RawMessage `json:"msgid"`
	}
	if err := unmarshal(body, &wire); err != nil {
		return err
	}
	if wire.Code == nil {
		return errors.New("errcode missing")
	}
	msgid, err := strconv.ParseInt(unquoted(wire.MsgID), 10, 64)
	if err != nil || msgid < 0 {
		msgid = 0
	}
	*a = subscribeAnswer(msgid)
	return nil
}

// scan reads the usual answers, with a msgid and without.
func (a *subscribeAnswer) scan(body []byte) bool {
	var sent sendAnswer
	if !sent.scan(body) || sent < 0 {
		return false
	}
	*a = subscribeAnswer(sent)
	return true
}

// SubscribeTemplate is a template of the mini program's own list.
type SubscribeTemplate struct {
	ID       string
	Content  string // text with placeholders such as 名称:{{thing1.DATA}}
	LongTerm bool   // one acceptance allows any number of messages, else one
	// Enums are the values that an enumeration's keyword may have, by keyword such as enum3.
	Enums map[string][]string
}

// SubscribeTemplates lists the templates that the mini program may send.
//
// https://developers.weixin.qq.com/miniprogram/dev/OpenApiDoc/mp-message-management/subscribe-message/getMessageTemplateList.html
func (c *Client) SubscribeTemplates(ctx context.Context) ([]SubscribeTemplate, error) {
	var list subscribeTemplatesAnswer
	err := c.authorised(ctx, request{endpoint: subscribeTemplatesEndpoint, into: &list})
	return list, err
}

type subscribeTemplatesAnswer []SubscribeTemplate

// The types of a template; 2 is one-time.
const longTermType = "3"

// subscribeTemplateWire leaves open what only some templates need: a value of another type costs
// that template its rule and not the account its list.
type subscribeTemplateWire struct {
	ID      string          `json:"priTmplId"`
	Content string          `json:"content"`
	Type    json.RawMessage `json:"type"` // 3 or "3"
	Enums   json.RawMessage `json:"keywordEnumValueList"`
}

// decode insists on the list, as for an official account.
func (a *subscribeTemplatesAnswer) decode(body []byte) error {
	var wire struct {
		List *[]subscribeTemplateWire `json:"data"`
	}
	if err := unmarshal(body, &wire); err != nil {
		return err
	}
	if wire.List == nil {
		return errors.New("data missing")
	}
	*a = make([]SubscribeTemplate, len(*wire.List))
	for i, t := range *wire.List {
		(*a)[i] = SubscribeTemplate{ID: t.ID, Content: t.Content, Enums: t.enums(),
			LongTerm: unquoted(t.Type) == longTermType}
	}
	return nil
}

func (t *subscribeTemplateWire) enums() map[string][]string {
	var list []struct {
		Key    string   `json:"keywordCode"` // enum3.DATA
		Values []string `json:"enumValueList"`
	}
	if json.Unmarshal(t.Enums, &list) != nil || len(list) == 0 {
		return nil
	}
	enums := make(map[string][]string, len(list))
	for _, enum := range list {
		enums[strings.TrimSuffix(enum.Key, ".DATA")] = enum.Values
	}
	return enums
}

// unquoted is the text of a number that may stand in quotes.
func unquoted(number json.RawMessage) string { return strings.Trim(string(number), `"`) }
