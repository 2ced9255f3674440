package main

import (
	"strings"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/intake"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/route"
)

// doorRules let the intake judge a message as the sender would.
type doorRules struct {
	routes    *route.Rules
	templates channel.Templates
	minis     channel.MiniApps
	channels  map[string]channel.Channel // by appid
}

func (p *parts) doorRules() doorRules {
	templates := templateIDs(p.cfg)
	return doorRules{
		routes: route.New(route.Config{
			Accounts: routeAccounts(p.cfg), Templates: templates, Aliases: routes(p.cfg),
		}),
		templates: templates, minis: miniAppIDs(p.cfg), channels: p.channels,
	}
}

// routeAccounts are the accounts that send.
func routeAccounts(cfg *config.Config) []route.Account {
	var accounts []route.Account
	for _, a := range cfg.OfficialAccounts {
		accounts = append(accounts, route.Account{AppID: a.AppID, Kind: route.Official, Default: a.Default})
	}
	for _, m := range sendingMinis(cfg) {
		accounts = append(accounts, route.Account{
			AppID: m.AppID, Kind: route.Mini, Default: m.AppID == cfg.DefaultAppID(),
		})
	}
	return accounts
}

// Ways returns the accounts that may send a message.
func (r doorRules) Ways(m *intake.Message) ([]intake.Way, *intake.Rejection) {
	to, why := r.minis.Recipient(bridge.Recipient{UnionID: m.UnionID, MiniAppID: m.MiniAppID,
		MiniOpenID: m.MiniOpenID, OpenID: m.OpenID})
	if why != nil {
		return nil, &intake.Rejection{Code: 40003, Field: "recipient",
			Message: "invalid openid: " + why.Message}
	}
	if to.MiniAppID != "" {
		m.MiniAppID = to.MiniAppID
	}
	plan, why := r.routes.Plan(route.Row{Template: m.Template, AppID: m.AppID, Route: m.Route,
		MiniAppID: m.MiniAppID})
	if why != nil {
		return nil, &intake.Rejection{Code: 40097, Field: "route", Message: "invalid args: " + why.Message}
	}
	var ways []intake.Way
	for _, appid := range []string{plan.First, plan.Next} {
		switch r.routes.Kind(appid) {
		case route.Official:
			ways = append(ways, intake.Way{AppID: appid, Call: applications.TemplateSend})
		case route.Mini:
			ways = append(ways, intake.Way{AppID: appid, Call: applications.SubscribeSend})
		}
	}
	if len(ways) == 0 || ways[0].AppID != plan.First {
		return nil, &intake.Rejection{Code: 48001, Field: "appid",
			Message: "api unauthorized: this account sends no messages"}
	}
	return ways, nil
}

// Check says what the account's channel would reject.
func (r doorRules) Check(m *intake.Message, appid string) *intake.Rejection {
	id, why := r.templates.ID(m.Template, appid)
	if why != nil {
		return &intake.Rejection{Code: 40037, Field: "template", Message: "invalid template_id: " + why.Message}
	}
	c, known := r.channels[appid].(channel.Previewer)
	if !known {
		return nil
	}
	why = c.Preview(channel.Content{
		Template: m.Template, TemplateID: id, Data: string(m.Data), URL: m.URL, MiniAppID: m.MiniAppID,
		MiniPath: m.MiniPath, JumpAppID: m.JumpAppID, Page: m.Page, State: m.MiniState, Lang: m.Lang,
	})
	if why == nil {
		return nil
	}
	return doorRejection(why)
}

// doorRejection puts a channel's words behind those of WeChat, by which callers' parsers go.
func doorRejection(why *channel.Rejection) *intake.Rejection {
	r := &intake.Rejection{Code: 47003, Field: why.Field}
	words := "argument invalid!"
	switch {
	case why.Reason == channel.ReasonUnknownTemplate:
		r.Code, words = 40037, "invalid template_id:"
	case why.Field == "url":
		r.Code, words = 40039, "invalid url size:"
	case why.Field == "mini_path":
		r.Code, words = 40165, "invalid weapp pagepath:"
	case why.Field == "page":
		r.Code, words = 41030, "invalid page:"
	case why.Reason == channel.ReasonBadOption:
		r.Code, words = 40097, "invalid args:"
	case strings.HasPrefix(why.Field, "data."):
		words += " " + why.Field + ".value invalid:"
		if strings.Contains(why.Message, why.Field+" is empty") ||
			strings.Contains(why.Message, why.Field+" is missing") {
			words = "argument invalid! " + why.Field + ".value is empty:"
		}
	}
	r.Message = words + " " + why.Message
	return r
}
