// Package doctor finds out whether an account can work, and says of what is wrong how to fix it. It
// calls WeChat, reaches nobody, and changes nothing.
package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechat/keyword"
)

// API is what the checks ask WeChat; *wechat.Client has it.
type API interface {
	Quota(ctx context.Context, path string) (wechat.Quota, error)
	PrivateTemplates(ctx context.Context) ([]wechat.Template, error)
}

// Account is what is checked.
type Account struct {
	AppID     string
	API       API
	QuotaPath string            // whose quota is asked for
	Templates map[string]string // alias → id, as configured for this account

	Mini bool                // a mini program
	Keys map[string][]string // alias → keys that its template must have
}

// Problem is something that a person must fix.
type Problem struct {
	AppID  string
	Reason string // as in docs/states.md, or template_missing
	// Subject is the alias that it is about; "": the whole account.
	Subject string
	Text    string // what was seen; one line, no secret
	Cure    string
	Err     *wechat.Error // nil: of a template
}

// String is one line with all of it.
func (p Problem) String() string {
	return fmt.Sprintf("%s: %s: %s. %s", p.AppID, p.Reason, strings.TrimSuffix(p.Text, "."), p.Cure)
}

// ReasonTemplateMissing is of an alias whose template the account does not have.
const ReasonTemplateMissing = "template_missing"

// ReasonKeyMissing is of an alias that names a key which its template does not have.
const ReasonKeyMissing = "template_key_missing"

// Result is what the checks of one account found.
type Result struct {
	// TokenTaken: WeChat gave a token, and took it.
	TokenTaken bool
	Quota      *wechat.Quota // nil: not known, and that is no problem
	// Templates is how many of the account's aliases stand in its list; -1: not known.
	Templates int
	Problems  []Problem
	Err       error // why nothing is known of the account; nil: it is
	ListErr   error // why the list of templates is not known; nil: it is, or need not be
}

// Check makes a token call where there is no token yet, one quota call, and, where the account has
// aliases, one for its templates. A quota that the account may not ask for is no problem: the
// refusal shows that the token is good.
func Check(ctx context.Context, a Account) Result {
	r := Result{Templates: -1}
	quota, err := a.API.Quota(ctx, a.QuotaPath)
	taken, bad := judge(err)
	switch {
	case bad != nil:
		r.Problems = append(r.Problems, accountProblem(a, bad))
		return r
	case !taken:
		r.Err = err
		return r
	case err == nil:
		r.Quota = &quota
	}
	r.TokenTaken = true
	if len(a.Templates) > 0 {
		r.checkTemplates(ctx, a)
	}
	return r
}

// judge says what the answer to a quota call shows: that WeChat took the token, or what a person
// must fix; neither: nothing, as when WeChat is busy or cannot be reached.
func judge(err error) (taken bool, bad *wechat.Error) {
	if err == nil {
		return true, nil
	}
	we, ok := errors.AsType[*wechat.Error](err)
	if !ok {
		return false, nil
	}
	// Some accounts may not ask for quotas (48001, 76022).
	answered := we.Endpoint == wechat.EndpointQuota && we.Code != 0
	forbidden := answered && we.Reason == wechat.ReasonNoPermission
	switch we.Policy {
	case wechat.PolicyConfig, wechat.PolicyToken:
		if !forbidden {
			return false, we
		}
	case wechat.PolicyQuotaDay:
		if !answered { // no more tokens today
			return false, we
		}
	case wechat.PolicyRetry:
		return false, nil
	}
	return answered, nil
}

// cures are of what has no errcode of WeChat's.
var cures = map[wechat.Reason]string{ //nolint:gochecknoglobals // constant
	"http_refused": "Something on the way refuses the call: check wechat.base_url, and the proxy " +
		"of this machine.",
	"redirected": "Something on the way redirects the call: check wechat.base_url, and the proxy " +
		"of this machine.",
	wechat.ReasonTokenSupply: "Check token of the account in the configuration: the company's token server or " +
		"command must hand out the token that is valid now.",
	wechat.ReasonTokenRefused: "It is asked again. If it stays, check that wechat.base_url and " +
		"the secret are this account's.",
	wechat.ReasonTokenFight: "Another program fetches tokens of this appid in mode classic: " +
		"stop it, or let both use stable_token.",
}

func accountProblem(a Account, we *wechat.Error) Problem {
	explanation := wechat.Explain(we.Code)
	if a.Mini {
		explanation = wechat.ExplainAt(wechat.EndpointSendSubscribe, we.Code)
	}
	cure := cmp.Or(explanation, cures[we.Reason],
		"docs/states.md says what "+string(we.Reason)+" means and what to do.")
	return Problem{AppID: a.AppID, Reason: string(we.Reason), Text: we.Error(), Cure: cure, Err: we}
}

// checkTemplates compares the aliases with the account's list. An empty list says nothing, as in the
// pre-flight.
func (r *Result) checkTemplates(ctx context.Context, a Account) {
	list, err := a.API.PrivateTemplates(ctx)
	switch {
	case err != nil:
		r.ListErr = err
		return
	case len(list) == 0:
		r.ListErr = errors.New("the account's list of templates is empty")
		return
	}
	r.Templates = 0
	for _, alias := range slices.Sorted(maps.Keys(a.Templates)) {
		id := a.Templates[alias]
		at := slices.IndexFunc(list, func(t wechat.Template) bool { return t.ID == id })
		if at >= 0 {
			r.Templates++
			r.checkKeys(a, alias, list[at])
			continue
		}
		console, keys := "模板消息 → 我的模板", "official.id or official.ids"
		if a.Mini {
			console, keys = "订阅消息 → 我的模板", "mini.id or mini.ids"
		}
		r.Problems = append(r.Problems, Problem{
			AppID: a.AppID, Reason: ReasonTemplateMissing, Subject: alias,
			Text: fmt.Sprintf("templates.%s names %s, which the account's list does not have",
				alias, id),
			Cure: "Compare it with the console, " + console + ", and correct " + keys +
				" of the alias, or add the template to the account. Then restart.",
		})
	}
}

// checkKeys compares the keys that an alias sends with those of its template.
func (r *Result) checkKeys(a Account, alias string, t wechat.Template) {
	known := keyword.Parse(t.Content).Names()
	for _, key := range a.Keys[alias] {
		if slices.Contains(known, key) {
			continue
		}
		r.Problems = append(r.Problems, Problem{
			AppID: a.AppID, Reason: ReasonKeyMissing, Subject: alias + "." + key,
			Text: fmt.Sprintf("templates.%s.mini.keys names %s, and template %s has %s", alias, key,
				t.ID, strings.Join(known, ", ")),
			Cure: "Correct mini.keys of the alias. Then restart.",
		})
	}
}
