package compat

import (
	"cmp"
	"context"
	"encoding/json"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/intake"
)

// accepted is the answer to a message. WeChat has no msgid in some of them; no SDK minds one more.
type accepted struct {
	problem
	MsgID int64 `json:"msgid"` // send_request.id, below 2^53, which JavaScript keeps exactly
}

// jump is where a tap leads. SDKs send it with empty texts where there is none.
type jump struct {
	AppID    string `json:"appid"`
	PagePath string `json:"pagepath"` // encoding/json takes pagePath too
	Path     string `json:"path"`     // WxJava's word in a uniform message
}

func (j jump) path() string { return cmp.Or(j.PagePath, j.Path) }

// templateMessage is the body of template/send. Colours are not read: WeChat shows none any more.
type templateMessage struct {
	ToUser      string          `json:"touser"`
	TemplateID  string          `json:"template_id"`
	URL         string          `json:"url"`
	MiniProgram jump            `json:"miniprogram"`
	Data        json.RawMessage `json:"data"`
	ClientMsgID string          `json:"client_msg_id"`
}

func (t templateMessage) message() intake.Message {
	return intake.Message{
		Call: applications.TemplateSend, Template: t.TemplateID, Data: t.Data, URL: t.URL,
		JumpAppID: t.MiniProgram.AppID, MiniPath: t.MiniProgram.path(), Key: t.ClientMsgID,
	}
}

// sendTemplate is POST /cgi-bin/message/template/send. With the token of a mini program, touser is its
// user, whom the default official account reaches; WeChat has only an error for that.
func (d *Door) sendTemplate(ctx context.Context, c *call) (any, error) {
	var t templateMessage
	if err := c.decode(&t); err != nil {
		return nil, err
	}
	m := t.message()
	switch d.cfg.Accounts.Kind(c.session.AppID) {
	case Mini:
		m.AppID = d.cfg.Accounts.Official()
		m.Recipient = intake.Recipient{MiniAppID: c.session.AppID, MiniOpenID: t.ToUser}
		if m.AppID == "" {
			return nil, refused(48001, "api unauthorized: no official account is configured")
		}
	default:
		m.AppID, m.Recipient = c.session.AppID, intake.Recipient{OpenID: t.ToUser}
	}
	return d.accept(ctx, c, m)
}

// sendSubscribe is POST /cgi-bin/message/subscribe/send, from the token's mini program alone.
func (d *Door) sendSubscribe(ctx context.Context, c *call) (any, error) {
	var s struct {
		ToUser      string          `json:"touser"`
		TemplateID  string          `json:"template_id"`
		Page        string          `json:"page"`
		Data        json.RawMessage `json:"data"`
		State       string          `json:"miniprogram_state"`
		Lang        string          `json:"lang"`
		ClientMsgID string          `json:"client_msg_id"` // ours: WeChat knows none here
	}
	if err := c.decode(&s); err != nil {
		return nil, err
	}
	if d.cfg.Accounts.Kind(c.session.AppID) != Mini {
		return nil, refused(48001, "api unauthorized: the token is not of a mini program that sends")
	}
	return d.accept(ctx, c, intake.Message{
		Call: applications.SubscribeSend, AppID: c.session.AppID, Template: s.TemplateID, Data: s.Data,
		Recipient: intake.Recipient{OpenID: s.ToUser}, Key: s.ClientMsgID,
		Options: intake.Options{Page: s.Page, MiniState: s.State, Lang: s.Lang},
	})
}

// formMessage is the body of wxopen/template/send, and a half of a uniform message. WeChat took
// form_id until 2020-01-10.
type formMessage struct {
	ToUser      string          `json:"touser"`
	TemplateID  string          `json:"template_id"`
	Page        string          `json:"page"`
	Data        json.RawMessage `json:"data"`
	ClientMsgID string          `json:"client_msg_id"`
}

// sendForm is POST /cgi-bin/message/wxopen/template/send.
func (d *Door) sendForm(ctx context.Context, c *call) (any, error) {
	var f formMessage
	if err := c.decode(&f); err != nil {
		return nil, err
	}
	return d.succeed(ctx, c, f)
}

// succeed sends what has taken the place of a withdrawn template.
func (d *Door) succeed(ctx context.Context, c *call, f formMessage) (any, error) {
	successor := ""
	if f.TemplateID != "" {
		successor = d.cfg.Accounts.Successor(f.TemplateID)
	}
	if successor == "" {
		return nil, refused(45103, "This API has been unsupported: form_id ended on 2020-01-10. Send a "+
			"subscribe message, or name this template under templates.<alias>.replaces of unionbridge")
	}
	m := intake.Message{
		Template: successor, Data: f.Data, Key: f.ClientMsgID, Options: intake.Options{Page: f.Page},
		Recipient: intake.Recipient{MiniAppID: c.session.AppID, MiniOpenID: f.ToUser},
	}
	if d.cfg.Accounts.Kind(c.session.AppID) == Official {
		m.AppID, m.Recipient = c.session.AppID, intake.Recipient{OpenID: f.ToUser}
	}
	return d.accept(ctx, c, m)
}

// sendUniform is POST /cgi-bin/message/wxopen/template/uniform_send, which WeChat withdrew on
// 2023-09-20. The official account's half is sent; a template_id that is empty is none.
func (d *Door) sendUniform(ctx context.Context, c *call) (any, error) {
	var u struct {
		ToUser string      `json:"touser"`
		Mini   formMessage `json:"weapp_template_msg"`
		// Official names the account in its appid.
		Official struct {
			AppID string `json:"appid"`
			templateMessage
		} `json:"mp_template_msg"`
		ClientMsgID string `json:"client_msg_id"`
	}
	if err := c.decode(&u); err != nil {
		return nil, err
	}
	if u.Official.TemplateID == "" {
		u.Mini.ToUser, u.Mini.ClientMsgID = u.ToUser, u.ClientMsgID
		return d.succeed(ctx, c, u.Mini)
	}
	m := u.Official.message()
	m.Call, m.Key = applications.UniformSend, cmp.Or(u.ClientMsgID, u.Official.ClientMsgID)
	if m.AppID = cmp.Or(u.Official.AppID, d.cfg.Accounts.Official()); m.AppID == "" {
		return nil, refused(40013, "invalid appid: mp_template_msg.appid is missing")
	}
	var err error
	if m.Recipient, err = d.uniformRecipient(ctx, c, m.AppID, u.ToUser); err != nil {
		return nil, err
	}
	return d.accept(ctx, c, m)
}

// uniformRecipient finds out whose openid touser is: WeChat took both. One that nobody knows is of a
// user who has not logged in yet.
func (d *Door) uniformRecipient(
	ctx context.Context, c *call, official, touser string,
) (intake.Recipient, error) {
	mini := c.session.AppID
	if d.cfg.Accounts.Kind(mini) == Official {
		return intake.Recipient{OpenID: touser}, nil
	}
	user := intake.Recipient{MiniAppID: mini, MiniOpenID: touser}
	known, err := d.cfg.Accounts.IsUser(ctx, mini, touser)
	if known || err != nil {
		return user, err
	}
	follows, err := d.cfg.Accounts.IsFollower(ctx, official, touser)
	if follows {
		return intake.Recipient{OpenID: touser}, err
	}
	return user, err
}

func (d *Door) accept(ctx context.Context, c *call, m intake.Message) (any, error) {
	m.Key = cmp.Or(m.Key, c.Header.Get("Idempotency-Key"))
	r := d.cfg.Messages.Accept(ctx, c.session, []intake.Message{m})[0]
	if r.Err != nil {
		return nil, r.Err
	}
	return accepted{problem{0, "ok"}, r.ID}, nil
}

// notOffered is the answer to a call of WeChat's that no application gets.
func notOffered(context.Context, *call) (any, error) {
	return nil, refused(48001, "api unauthorized: not offered here")
}
