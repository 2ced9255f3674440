package main

import (
	"context"
	"errors"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/intake"
	"github.com/unionbridge/unionbridge/internal/login"
	"github.com/unionbridge/unionbridge/internal/observation"
	"github.com/unionbridge/unionbridge/internal/web/api"
	"github.com/unionbridge/unionbridge/internal/web/compat"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

// loginConnections is how many logins of a mini program that does not send are exchanged at once.
const loginConnections = 16

// exchange is what exchanges login codes, for every mini program whose secret is known.
func (p *parts) exchange(registry *applications.Registry) *login.Exchange {
	sessions := make(map[string]login.Sessions)
	for _, m := range p.cfg.MiniPrograms {
		client := p.clients[m.AppID]
		if client == nil && m.Secret.Reveal() != "" {
			client = wechat.New(wechat.Config{
				AppID: m.AppID, Secret: m.Secret.Reveal(), BaseURL: p.cfg.WeChat.BaseURL,
				Timeout: p.cfg.WeChat.Timeout.Std(), SendTimeout: p.cfg.WeChat.SendTimeout.Std(),
				Token: tokenConfig(m.Token), MaxConnections: loginConnections, Logger: p.log,
			})
		}
		if client != nil {
			sessions[m.AppID] = client
		}
	}
	return login.New(login.Config{
		Registry: registry, Sessions: sessions, Users: bridge.New(p.db), Alarm: p.alarmUnionID,
		Logger: p.log, Registerer: p.reg, Now: time.Now,
	})
}

// alarmUnionID keeps, for status and metrics, that users of a mini program come without a unionid.
func (p *parts) alarmUnionID(ctx context.Context, appid string) {
	err := observation.Store{DB: p.db}.SaveProblem(ctx, observation.Problem{
		AppID: appid, Reason: observation.ReasonNoUnionID,
		Text: "users of the mini program log in without a unionid, though others have one",
		Cure: "look at open.weixin.qq.com whether the mini program is still bound to the Open Platform account",
	})
	if err != nil {
		p.log.Warn("keeping an alarm", "appid", appid, "err", err)
	}
}

// doorLogins is the exchange in the words of the doors.
type doorLogins struct{ exchange *login.Exchange }

func (d doorLogins) exchanged(
	ctx context.Context, s applications.Session, appid, code string,
) (login.Person, error) {
	who, err := d.exchange.Login(ctx, s, appid, code)
	if r, ok := errors.AsType[*login.Refusal](err); ok {
		err = &intake.Rejection{Code: r.Code, Field: "code", Message: r.Message}
	}
	return who, err
}

// Login exchanges a code for the native door.
func (d doorLogins) Login(
	ctx context.Context, s applications.Session, appid, code string,
) (api.Login, error) {
	who, err := d.exchanged(ctx, s, appid, code)
	return api.Login{OpenID: who.OpenID, UnionID: who.UnionID, SessionKey: who.SessionKey.Reveal()}, err
}

// compat is the same for the door for SDKs.
func (d doorLogins) compat() compatLogins { return compatLogins{d} }

type compatLogins struct{ doorLogins }

// Login exchanges a code for the door for SDKs.
func (d compatLogins) Login(
	ctx context.Context, s applications.Session, appid, code string,
) (compat.Login, error) {
	who, err := d.exchanged(ctx, s, appid, code)
	return compat.Login{OpenID: who.OpenID, UnionID: who.UnionID, SessionKey: who.SessionKey.Reveal()}, err
}
