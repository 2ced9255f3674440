package wechat

import (
	"context"
	"encoding/json"
	"errors"
	"unicode/utf8"

	"github.com/unionbridge/unionbridge/internal/wechat/keyword"
)

// TemplateMessage is one message to one follower.
type TemplateMessage struct {
	ToUser      string           // openid in this official account
	TemplateID  string           // 43 characters; an alias is the caller's to resolve
	URL         string           // where a tap leads; empty: nowhere
	MiniProgram *MiniProgramLink // leads before URL, which is then for old WeChat versions
	// Data is {"thing1":{"value":"x"}}: valid JSON, raw UTF-8 without \u escapes. Not checked here.
	Data json.RawMessage
	// ClientMsgID lets WeChat send one message only per (openid, client_msg_id) within 10 minutes.
	ClientMsgID string
}

// MiniProgramLink is a page of a mini program that is bound to the official account.
type MiniProgramLink struct {
	AppID    string
	PagePath string
}

// SendTemplate makes exactly one POST, whatever happens, and returns the msgid that the receipt
// (TEMPLATESENDJOBFINISH) will carry. Success means accepted, not delivered. Of an *Error, Policy
// says whether and when to repeat it, Uncertain whether the message may be under way nevertheless.
// If the token was refused (PolicyToken) the next call fetches a new one.
//
// https://developers.weixin.qq.com/doc/service/api/notify/template/api_sendtemplatemessage
func (c *Client) SendTemplate(ctx context.Context, m TemplateMessage) (msgid int64, err error) {
	token, err := c.tokens.get(ctx)
	if err != nil {
		return 0, err
	}
	var sent sendAnswer
	r := request{endpoint: sendTemplateEndpoint, token: token.value, body: m.json(), into: &sent}
	err = c.once(ctx, r)
	c.settleToken(token, err)
	return int64(sent), err
}

// json is written by hand, for 10,000 messages a second.
func (m *TemplateMessage) json() []byte {
	size := 160 + len(m.ToUser) + len(m.TemplateID) + len(m.URL) + len(m.Data) + len(m.ClientMsgID)
	if m.MiniProgram != nil {
		size += len(m.MiniProgram.AppID) + len(m.MiniProgram.PagePath)
	}
	b := make([]byte, 0, size)
	b = appendString(append(b, `{"touser":`...), m.ToUser)
	b = appendString(append(b, `,"template_id":`...), m.TemplateID)
	if m.URL != "" {
		b = appendString(append(b, `,"url":`...), m.URL)
	}
	if m.MiniProgram != nil {
		b = appendString(append(b, `,"miniprogram":{"appid":`...), m.MiniProgram.AppID)
		if m.MiniProgram.PagePath != "" {
			b = appendString(append(b, `,"pagepath":`...), m.MiniProgram.PagePath)
		}
		b = append(b, '}')
	}
	if m.ClientMsgID != "" {
		b = appendString(append(b, `,"client_msg_id":`...), m.ClientMsgID)
	}
	b = append(b, `,"data":`...)
	if len(m.Data) == 0 {
		b = append(b, `{}`...)
	}
	return append(append(b, m.Data...), '}')
}

// sendAnswer is a msgid.
type sendAnswer int64

// decode insists on the errcode: {} is no acceptance.
func (a *sendAnswer) decode(body []byte) error {
	var wire struct {
		Code  *looseInt `json:"errcode"`
		MsgID looseInt  `json:"msgid"` // above 2^53: a float64 on the way would change it
	}
	if err := unmarshal(body, &wire); err != nil {
		return err
	}
	if wire.Code == nil {
		return errors.New("errcode missing")
	}
	*a = sendAnswer(wire.MsgID)
	return nil
}

func (a *sendAnswer) scan(body []byte) bool {
	s := scanner{text: string(body)}
	code, msgid, errmsg := int64(-1), int64(0), ""
	ok := s.object(func(key string) bool {
		switch key {
		case "errcode":
			return s.integer(&code)
		case "errmsg":
			return s.str(&errmsg)
		case "msgid":
			return s.integer(&msgid)
		}
		return false
	})
	if !ok || !s.end() || code != 0 {
		return false
	}
	*a = sendAnswer(msgid)
	return true
}

// Template is a message template of the account's own library.
type Template struct {
	ID      string `json:"template_id"`
	Content string `json:"content"` // text with placeholders such as {{thing1.DATA}}
}

// PrivateTemplates lists the templates that the account may send, 25 at most by the rules of today.
//
// https://developers.weixin.qq.com/doc/service/api/notify/template/api_getalltemplates
func (c *Client) PrivateTemplates(ctx context.Context) ([]Template, error) {
	var list templatesAnswer
	err := c.authorised(ctx, request{endpoint: templatesEndpoint, into: &list})
	return list, err
}

type templatesAnswer []Template

// decode insists on the list: without any template every request would be refused.
func (a *templatesAnswer) decode(body []byte) error {
	var wire struct {
		List *[]Template `json:"template_list"`
	}
	if err := unmarshal(body, &wire); err != nil {
		return err
	}
	if wire.List == nil {
		return errors.New("template_list missing")
	}
	*a = *wire.List
	return nil
}

// appendString appends s as a JSON string in raw UTF-8. It writes no \u escape, which some
// endpoints refuse (40033, 47002): invalid UTF-8 becomes U+FFFD, and control characters without a
// short escape are left out; WeChat refuses both anyway.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(append(b, s[start:i]...), "\uFFFD"...)
				start = i + 1
			}
			i += n
			continue
		}
		if c >= 0x20 && c != '"' && c != '\\' {
			i++
			continue
		}
		b = append(append(b, s[start:i]...), escape(c)...)
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}

func escape(c byte) string {
	switch c {
	case '"':
		return `\"`
	case '\\':
		return `\\`
	case '\n':
		return `\n`
	case '\r':
		return `\r`
	case '\t':
		return `\t`
	}
	return ""
}

// TemplateData returns the data of a message as WeChat takes it: {"thing1":{"value":"x"}}.
func TemplateData(values []keyword.Value) json.RawMessage {
	size := 2
	for _, v := range values {
		size += len(v.Key) + len(v.Value) + len(`"":{"value":""},`)
	}
	out := append(make([]byte, 0, size), '{')
	for i, v := range values {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(appendString(out, v.Key), `:{"value":`...)
		out = append(appendString(out, v.Value), '}')
	}
	return append(out, '}')
}
