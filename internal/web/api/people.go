package api

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/intake"
)

// Person is somebody as the accounts know them that an application may see.
type Person struct {
	ID       string    `json:"id"` // as it was asked for
	UnionID  string    `json:"unionid,omitempty"`
	Accounts []Account `json:"accounts"`
}

// Account is somebody at one account.
type Account struct {
	AppID      string `json:"appid"`
	OpenID     string `json:"openid"`
	Kind       string `json:"kind"` // official or mini
	Subscribed bool   `json:"subscribed"`
}

// Report is what wx.requestSubscribeMessage answered about one template.
type Report struct {
	OpenID     string
	Template   string    // an alias or an id
	Result     string    // accept, reject, ban, …, as WeChat says it
	Key        string    // of the application: a report with the same is a repetition
	AcceptedAt time.Time // zero: now
}

// Login is who logged in.
type Login struct {
	OpenID     string
	UnionID    string
	SessionKey string
}

// maxCode is how long a code of wx.login may be; they have 32 characters.
const maxCode = 256

// The bounds of one request. Each id costs the database a few dives into an index.
const (
	maxIdentities = 100
	maxReports    = 100
)

// identities is POST /v1/identities: ids of people travel in bodies, since paths are logged.
func (a *API) identities(ctx context.Context, c *call) (answer, error) {
	var wanted struct {
		IDs []string `json:"ids"`
	}
	if err := decode(c.body, "", &wanted); err != nil {
		return answer{}, err
	}
	if n := len(wanted.IDs); n == 0 || n > maxIdentities {
		return answer{}, wrong("ids", fmt.Sprintf("takes 1 to %d ids, not %d", maxIdentities, n))
	}
	for i, id := range wanted.IDs {
		if !intake.IsID(id) {
			return answer{}, wrong(fmt.Sprintf("ids[%d]", i), "is no unionid and no openid: 1 to 64 "+
				"letters, digits, hyphens and underscores")
		}
	}
	appids := c.accounts(applications.Identities)
	if len(appids) == 0 {
		return answer{}, a.cfg.Registry.Allow(c.session, applications.Identities, c.session.AppID, "")
	}
	people, err := a.cfg.People.People(ctx, appids, wanted.IDs)
	if err != nil {
		return answer{}, err
	}
	if people == nil {
		people = []Person{}
	}
	return answer{status: http.StatusOK, body: struct {
		People []Person `json:"people"`
	}{people}}, nil
}

// accounts are those at which the application has a right.
func (c *call) accounts(right applications.Call) (appids []string) {
	accounts := c.session.Application.Accounts
	for _, appid := range slices.Sorted(maps.Keys(accounts)) {
		if slices.Contains(accounts[appid], right) {
			appids = append(appids, appid)
		}
	}
	return appids
}

// grants is POST /v1/grants. Either all reports are stored or none.
func (a *API) grants(ctx context.Context, c *call) (answer, error) {
	var wanted struct {
		AppID   string            `json:"appid"`
		Reports []json.RawMessage `json:"reports"`
	}
	if err := decode(c.body, "", &wanted); err != nil {
		return answer{}, err
	}
	if n := len(wanted.Reports); n == 0 || n > maxReports {
		return answer{}, wrong("reports", fmt.Sprintf("takes 1 to %d reports, not %d", maxReports, n))
	}
	appid, err := c.mini(wanted.AppID)
	if err != nil {
		return answer{}, err
	}
	if err := a.cfg.Registry.Allow(c.session, applications.Grants, appid, ""); err != nil {
		return answer{}, err
	}
	reports := make([]Report, len(wanted.Reports))
	for i, text := range wanted.Reports {
		at := fmt.Sprintf("reports[%d]", i)
		if reports[i], err = readReport(text, at); err != nil {
			return answer{}, err
		}
		if err := reports[i].check(at, a.cfg.Now()); err != nil {
			return answer{}, err
		}
	}
	if err := a.cfg.Grants.Report(ctx, c.session.Application.Name, appid, reports); err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusOK, body: struct {
		Stored int `json:"stored"`
	}{len(reports)}}, nil
}

// mini is the mini program that a body names, else that of the token.
func (c *call) mini(named string) (string, error) {
	switch appid := cmp.Or(named, c.session.AppID); {
	case appid == "":
		return "", wrong("appid", "is missing: the mini program, since a secret is of no account")
	case !intake.IsID(appid):
		return "", wrong("appid", "is no appid")
	default:
		return appid, nil
	}
}

func readReport(text []byte, at string) (r Report, err error) {
	var wanted struct {
		OpenID     string  `json:"openid"`
		Template   string  `json:"template"`
		Result     string  `json:"result"`
		Key        string  `json:"key"`
		AcceptedAt *string `json:"accepted_at"`
	}
	if err := decode(text, at, &wanted); err != nil {
		return r, err
	}
	r = Report{OpenID: wanted.OpenID, Template: wanted.Template, Result: wanted.Result, Key: wanted.Key}
	r.AcceptedAt, err = moment(wanted.AcceptedAt, at+".accepted_at")
	return r, err
}

func (r *Report) check(at string, now time.Time) error {
	const maxTemplate, maxResult, maxKey, skew = 128, 32, 128, 5 * time.Minute
	switch {
	case !intake.IsID(r.OpenID):
		return wrong(at+".openid", "is no openid: 1 to 64 letters, digits, hyphens and underscores")
	case r.Template == "" || len(r.Template) > maxTemplate:
		return wrong(at+".template", "is an alias of the configuration, or an id: 1 to 128 bytes")
	case r.Result == "" || len(r.Result) > maxResult || !printable(r.Result):
		return wrong(at+".result", "is what WeChat answered, such as accept: 1 to 32 characters of ASCII")
	case r.Key == "" || len(r.Key) > maxKey || !printable(r.Key):
		return wrong(at+".key", "is your own id of this answer, by which a repetition is known: 1 to 128 "+
			"characters of ASCII")
	case !r.AcceptedAt.IsZero() && r.AcceptedAt.Before(now.AddDate(-1, 0, 0)):
		return wrong(at+".accepted_at", "is more than a year ago")
	case r.AcceptedAt.After(now.Add(skew)):
		return wrong(at+".accepted_at", "is in the future")
	}
	return nil
}

func printable(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
}

// login is POST /v1/login: session_key passes through, and is kept nowhere.
func (a *API) login(ctx context.Context, c *call) (answer, error) {
	var wanted struct {
		AppID string `json:"appid"`
		Code  string `json:"code"`
	}
	if err := decode(c.body, "", &wanted); err != nil {
		return answer{}, err
	}
	appid, err := c.mini(wanted.AppID)
	if err != nil {
		return answer{}, err
	}
	if wanted.Code == "" || len(wanted.Code) > maxCode {
		return answer{}, wrong("code", fmt.Sprintf("is what wx.login gave: 1 to %d bytes", maxCode))
	}
	who, err := a.cfg.Logins.Login(ctx, c.session, appid, wanted.Code)
	if err != nil {
		return answer{}, a.loginFailed(err)
	}
	return answer{status: http.StatusOK, body: struct {
		OpenID     string `json:"openid"`
		UnionID    string `json:"unionid,omitempty"`
		SessionKey string `json:"session_key"`
	}{who.OpenID, who.UnionID, who.SessionKey}}, nil
}

// loginFailed is the error of an exchange. A code works once, so that one which may have been used is
// not to be shown again.
func (a *API) loginFailed(err error) error {
	p := a.problem(err)
	if p.Status != http.StatusServiceUnavailable {
		return err
	}
	p.Type, p.Title = typeUnknown, "The person has to log in again"
	p.Detail = "call wx.login for a new code: this one may be used up"
	return &failure{p}
}
