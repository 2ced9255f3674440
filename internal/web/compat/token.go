package compat

import (
	"context"
	"encoding/json"

	"github.com/unionbridge/unionbridge/internal/applications"
)

// issued is a token in WeChat's form, without errcode, as WeChat has it.
type issued struct {
	AccessToken string `json:"access_token"`
	ExpiresIn   int    `json:"expires_in"` // seconds
}

// credentials are what both token calls name. ForceRefresh changes nothing: no token ends another.
type credentials struct {
	GrantType    string          `json:"grant_type"`
	AppID        string          `json:"appid"`
	Secret       string          `json:"secret"`
	ForceRefresh json.RawMessage `json:"force_refresh"`
}

// token is GET /cgi-bin/token. Other parameters are ignored: some SDKs add their own.
func (d *Door) token(ctx context.Context, c *call) (any, error) {
	query := c.URL.Query()
	return d.issue(ctx, c, credentials{
		GrantType: query.Get("grant_type"), AppID: query.Get("appid"), Secret: query.Get("secret"),
	})
}

// stableToken is POST /cgi-bin/stable_token.
func (d *Door) stableToken(ctx context.Context, c *call) (any, error) {
	var wanted credentials
	if err := c.decode(&wanted); err != nil {
		return nil, err
	}
	return d.issue(ctx, c, wanted)
}

func (d *Door) issue(ctx context.Context, c *call, wanted credentials) (any, error) {
	switch {
	case wanted.GrantType != "client_credential":
		return nil, refused(40002, "invalid grant_type")
	case wanted.AppID == "":
		return nil, refused(41002, "appid missing")
	case wanted.Secret == "":
		return nil, refused(41004, "appsecret missing")
	}
	token, err := d.cfg.Registry.Token(ctx, applications.Credentials{
		AppID: wanted.AppID, Secret: wanted.Secret, From: c.from,
	})
	if err != nil {
		return nil, err
	}
	return issued{token, int(applications.TokenLife.Seconds())}, nil
}
