package compat

import (
	"context"
	"math"
	"net"
	"net/http"
	"strings"

	"github.com/unionbridge/unionbridge/internal/applications"
)

// What follows are calls that SDKs make when they start or check themselves. They cost no call to
// WeChat.

type listedTemplate struct {
	TemplateID string `json:"template_id"`
	Title      string `json:"title"`
	Content    string `json:"content"`
}

// privateTemplates is GET /cgi-bin/template/get_all_private_template. PowerWeChat calls it by POST
// with a body of null.
func (d *Door) privateTemplates(_ context.Context, c *call) (any, error) {
	list := make([]listedTemplate, 0, 8)
	for _, t := range d.templates(c, applications.TemplateSend) {
		list = append(list, listedTemplate{t.ID, t.Title, content(t.Keys)})
	}
	return struct {
		problem
		List []listedTemplate `json:"template_list"`
	}{problem{0, "ok"}, list}, nil
}

// subscribeTemplates is GET /wxaapi/newtmpl/gettemplate.
func (d *Door) subscribeTemplates(_ context.Context, c *call) (any, error) {
	type listed struct {
		ID      string `json:"priTmplId"`
		Title   string `json:"title"`
		Content string `json:"content"`
	}
	list := make([]listed, 0, 8)
	for _, t := range d.templates(c, applications.SubscribeSend) {
		list = append(list, listed{t.ID, t.Title, content(t.Keys)})
	}
	return struct {
		problem
		Data []listed `json:"data"`
	}{problem{0, "ok"}, list}, nil
}

// templates are those of the token's account that the application may send.
func (d *Door) templates(c *call, right applications.Call) (list []Template) {
	for _, t := range d.cfg.Accounts.Templates(c.session.AppID) {
		if c.session.May(right, c.session.AppID, t.ID) {
			list = append(list, t)
		}
	}
	return list
}

func content(keys []string) string {
	var b strings.Builder
	for _, key := range keys {
		b.WriteString("{{" + key + ".DATA}}\n")
	}
	return b.String()
}

// ownAddress is getcallbackip and get_api_domain_ip: whoever is reached here is us.
func ownAddress(_ context.Context, c *call) (any, error) {
	addresses := make([]string, 0, 1)
	if addr, ok := c.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		if host, _, err := net.SplitHostPort(addr.String()); err == nil {
			addresses = append(addresses, host)
		}
	}
	return struct {
		Addresses []string `json:"ip_list"`
	}{addresses}, nil
}

// quota is POST /cgi-bin/openapi/quota/get: what the application has left today of its own limit.
func (d *Door) quota(ctx context.Context, c *call) (any, error) {
	var wanted struct {
		Path string `json:"cgi_path"`
	}
	if err := c.decode(&wanted); err != nil {
		return nil, err
	}
	if e, served := d.endpoints[wanted.Path]; !served || e.open {
		return nil, refused(76021, "cgi_path not found, please check")
	}
	used, err := d.cfg.Registry.Used(ctx, c.session.Application.Name)
	if err != nil {
		return nil, err
	}
	limit := c.session.Application.Limit.Day
	if limit == 0 {
		limit = math.MaxInt32 // there is none, and a zero would stop callers
	}
	type amounts struct {
		Limit  int64 `json:"daily_limit"`
		Used   int64 `json:"used"`
		Remain int64 `json:"remain"`
	}
	return struct {
		problem
		Quota amounts `json:"quota"`
	}{problem{0, "ok"}, amounts{limit, used.Day, max(0, limit-used.Day)}}, nil
}
