package api

import (
	"context"
	"encoding/json"
	"errors"
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
	OpenID     string    `json:"openid"`
	Template   string    `json:"template"` // an alias or an id
	Result     string    `json:"result"`   // accept, reject, ban, …, as WeChat says it
	Key        string    `json:"key"`      // of the application: a report with the same is a repetition
	AcceptedAt time.Time `json:"accepted_at"`
}

// Login is who logged in.
type Login struct {
	OpenID     string
	UnionID    string
	SessionKey string
}

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

// grants is POST /v1/grants.
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
	if wanted.AppID == "" {
		wanted.AppID = c.session.AppID
	}
	if err := a.cfg.Registry.Allow(c.session, applications.Grants, wanted.AppID, ""); err != nil {
		return answer{}, err
	}
	reports := make([]Report, len(wanted.Reports))
	for i, text := range wanted.Reports {
		at := fmt.Sprintf("reports[%d]", i)
		if err := decode(text, at, &reports[i]); err != nil {
			return answer{}, err
		}
		if err := reports[i].check(at, a.cfg.Now()); err != nil {
			return answer{}, err
		}
	}
	if err := a.cfg.Grants.Report(ctx, wanted.AppID, reports); err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusOK, body: struct {
		Stored int `json:"stored"`
	}{len(reports)}}, nil
}

func (r *Report) check(at string, now time.Time) error {
	const maxResult, maxKey, skew = 32, 128, 5 * time.Minute
	switch {
	case !intake.IsID(r.OpenID):
		return wrong(at+".openid", "is no openid: 1 to 64 letters, digits, hyphens and underscores")
	case r.Template == "":
		return wrong(at+".template", "is missing: an alias of the configuration, or an id")
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

// errLoginAgain means that nobody knows whether a code is used up.
var errLoginAgain = errors.New("the person has to log in again")

// login is POST /v1/login: session_key passes through, and is kept nowhere.
func (a *API) login(ctx context.Context, c *call) (answer, error) {
	var wanted struct {
		AppID string `json:"appid"`
		Code  string `json:"code"`
	}
	if err := decode(c.body, "", &wanted); err != nil {
		return answer{}, err
	}
	if wanted.AppID == "" {
		wanted.AppID = c.session.AppID
	}
	switch {
	case wanted.AppID == "":
		return answer{}, wrong("appid", "is missing: the mini program of the code")
	case wanted.Code == "" || len(wanted.Code) > 256:
		return answer{}, wrong("code", "is what wx.login gave: 1 to 256 characters")
	}
	who, err := a.cfg.Logins.Login(ctx, c.session, wanted.AppID, wanted.Code)
	_, rejected := errors.AsType[*intake.Rejection](err)
	_, refused := errors.AsType[*applications.Refusal](err)
	switch {
	case rejected || refused:
		return answer{}, err
	case err != nil:
		return answer{}, errLoginAgain
	}
	return answer{status: http.StatusOK, body: struct {
		OpenID     string `json:"openid"`
		UnionID    string `json:"unionid,omitempty"`
		SessionKey string `json:"session_key"`
	}{who.OpenID, who.UnionID, who.SessionKey}}, nil
}
