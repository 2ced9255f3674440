package compat

import (
	"context"
	"errors"
	"net/http"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/intake"
)

// Login is who logged in.
type Login struct {
	OpenID, UnionID, SessionKey string
}

// Logins exchanges the codes of wx.login.
type Logins interface {
	// Login returns a rejection or a refusal, or another error where nobody knows whether the code is
	// used up.
	Login(ctx context.Context, s applications.Session, appid, code string) (Login, error)
}

// session is GET /sns/jscode2session. It comes with the secret itself; an access_token, which some SDKs
// add, is not looked at. A success has no errcode: there are callers that take any for an error.
func (d *Door) session(ctx context.Context, c *call) (any, error) {
	query := c.URL.Query()
	switch {
	case query.Get("grant_type") != "authorization_code":
		return nil, refused(40002, "invalid grant_type")
	case query.Get("appid") == "":
		return nil, refused(41002, "appid missing")
	case query.Get("secret") == "":
		return nil, refused(41004, "appsecret missing")
	case query.Get("js_code") == "":
		return nil, refused(41008, "missing code")
	}
	s, err := d.cfg.Registry.Authenticate(applications.Credentials{
		AppID: query.Get("appid"), Secret: query.Get("secret"), From: c.from,
	})
	if err != nil {
		return nil, err
	}
	who, err := d.cfg.Logins.Login(ctx, s, s.AppID, query.Get("js_code"))
	if err != nil {
		_, rejected := errors.AsType[*intake.Rejection](err)
		_, refused := errors.AsType[*applications.Refusal](err)
		if rejected || refused {
			return nil, err
		}
		// Not −1: WxJava would repeat the code, which is used up.
		return nil, &failure{http.StatusServiceUnavailable, 61450,
			"system busy, login again: call wx.login for a new code"}
	}
	return struct {
		SessionKey string `json:"session_key"`
		OpenID     string `json:"openid"`
		UnionID    string `json:"unionid,omitempty"`
	}{who.SessionKey, who.OpenID, who.UnionID}, nil
}
