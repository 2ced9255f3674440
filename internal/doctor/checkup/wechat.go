package checkup

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/unionbridge/unionbridge/internal/doctor"
	"github.com/unionbridge/unionbridge/internal/observation"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechat/keyword"
)

// Account is one that sends.
type Account struct {
	doctor.Account
	// Followers reads the beginning of the account's list; nil: a mini program has none.
	Followers func(ctx context.Context) (wechat.FollowerPage, error)

	CallbackToken string // "": it has no callback
	CallbackKey   string // where the token stands in the configuration
}

// observed is what the checks of one account share, so that it costs four calls at most: a token, the
// quota of messages, the templates, the first page of followers.
type observed struct {
	result doctor.Result
	list   []wechat.Template
}

// recorder keeps the list of templates for a second look.
type recorder struct {
	doctor.API
	list []wechat.Template
}

func (r *recorder) PrivateTemplates(ctx context.Context) (list []wechat.Template, err error) {
	list, err = r.API.PrivateTemplates(ctx)
	r.list = list
	return list, err
}

func checkToken(ctx context.Context, e *exam) (found []finding) {
	for _, a := range e.Accounts {
		api := &recorder{API: a.API}
		a.API = api
		r := doctor.Check(ctx, a.Account)
		e.seen[a.AppID] = observed{r, api.list}
		f := ok("WeChat takes the token")
		if r.Err != nil {
			f = bad(Fail, r.Err.Error(), "away", e.BaseURL)
		}
		for _, p := range r.Problems {
			if p.Err != nil {
				f = tokenProblem(p)
			}
		}
		found = append(found, f.of(a.AppID))
	}
	return found
}

// tokenProblem has WeChat's own words, which name the address that it saw.
func tokenProblem(p doctor.Problem) finding {
	f := bad(Fail, p.Reason+": "+p.Text, "problem", p.Cure)
	if text, known := cures[p.Reason]; known {
		f.cure = text
	}
	return f
}

// minQuota is the share of a day's quota below which somebody should look.
const minQuota = 0.10

// listPage is how many followers a call of user/get lists.
const listPage = 10_000

func checkQuota(ctx context.Context, e *exam) (found []finding) {
	quotas := e.storedQuotas(ctx)
	for _, a := range e.Accounts {
		o := e.seen[a.AppID]
		if q := o.result.Quota; q != nil {
			f := ok("%d of %d messages are left today", q.Remain, q.DailyLimit)
			if float64(q.Remain) < minQuota*float64(q.DailyLimit) {
				f = bad(Warn, f.seen, "sendquota", q.Remain, q.DailyLimit)
			}
			found = append(found, f.of(a.AppID))
		}
		for _, q := range quotas {
			if q.AppID == a.AppID && q.Endpoint == wechat.EndpointFollowers && a.Followers != nil {
				found = append(found, e.sweepQuota(ctx, q).of(a.AppID))
			}
		}
	}
	if found == nil {
		return []finding{skip("no account may ask for its quotas")}
	}
	return found
}

// storedQuotas are what the last sweeps were told: asking again would cost a call.
func (e *exam) storedQuotas(ctx context.Context) []observation.Quota {
	if _, err := e.database(ctx); err != nil || e.results["schema"] == Fail {
		return nil
	}
	quotas, err := observation.Store{DB: e.db}.Quotas(ctx)
	if err != nil {
		return nil
	}
	return quotas
}

func (e *exam) sweepQuota(ctx context.Context, q observation.Quota) finding {
	need := int64(math.Ceil(float64(e.followers(ctx))/listPage)) + 1
	f := ok("%d of %d calls of user/get were left at %s", q.Remaining, q.Limit, q.AskedAt.Local().Format("01-02 15:04"))
	if q.Remaining < need && e.Now().Sub(q.AskedAt).Hours() < 24 {
		f = bad(Fail, f.seen, "sweepquota", need, q.Remaining)
	}
	return f
}

func checkFollowers(ctx context.Context, e *exam) (found []finding) {
	for _, a := range e.Accounts {
		if a.Followers == nil || !e.seen[a.AppID].result.TokenTaken {
			continue
		}
		page, err := a.Followers(ctx)
		switch {
		case err != nil:
			found = append(found, bad(Warn, err.Error(), "away", e.BaseURL).of(a.AppID))
		case page.Total == 0:
			found = append(found, bad(Fail, "the account has no follower", "nofollowers", a.AppID).of(a.AppID))
		default:
			found = append(found, e.bound(ctx, a, page.Total).of(a.AppID))
		}
	}
	if found == nil {
		return []finding{skip("no official account")}
	}
	return found
}

// bound looks at one person of the map whom WeChat has told us about: asking would cost a call.
func (e *exam) bound(ctx context.Context, a Account, total int64) finding {
	var unionids []string
	if _, err := e.database(ctx); err == nil && e.results["schema"] != Fail {
		const query = `
			SELECT COALESCE(unionid, '') FROM follower
			 WHERE appid = ? AND subscribed = 1 AND info_at IS NOT NULL LIMIT 100`
		if err := e.db.SelectContext(ctx, &unionids, query, a.AppID); err != nil {
			unionids = nil
		}
	}
	none := !slices.ContainsFunc(unionids, func(id string) bool { return id != "" })
	switch {
	case len(unionids) == 0:
		return ok("%d followers; whether they have unionids shows with the first sweep", total)
	case none:
		return finding{state: Fail, seen: fmt.Sprintf("%d followers, and the first %d have no unionid", total,
			len(unionids))}
	}
	return ok("%d followers, with unionids", total)
}

func checkTemplates(_ context.Context, e *exam) (found []finding) {
	for _, a := range e.Accounts {
		o := e.seen[a.AppID]
		if len(a.Templates) == 0 || !o.result.TokenTaken {
			continue
		}
		missing := 0
		for _, p := range o.result.Problems {
			if p.Err == nil {
				missing++
				found = append(found, missingTemplate(a, p, o.list).of(a.AppID))
			}
		}
		switch {
		case o.result.ListErr != nil:
			found = append(found, skip("the list could not be read: %v", o.result.ListErr).of(a.AppID))
		case missing == 0:
			found = append(found, ok("%d aliases are in the account's list", len(a.Templates)).of(a.AppID))
		}
	}
	if found == nil {
		return []finding{skip("no alias names a template")}
	}
	return found
}

// missingTemplate names the template whose id is most alike: ids are cut and mistyped.
func missingTemplate(a Account, p doctor.Problem, list []wechat.Template) finding {
	id, given := a.Templates[p.Subject]
	if !given || len(list) == 0 {
		return bad(Fail, p.Text, "problem", p.Cure)
	}
	nearest := slices.MinFunc(list, func(s, t wechat.Template) int {
		return cmp.Compare(distance(id, s.ID), distance(id, t.ID))
	})
	keys := strings.Join(keyword.Parse(nearest.Content).Names(), ", ")
	seen := p.Text + "; the most similar one is " + nearest.ID
	f := bad(Fail, seen, "template", nearest.ID, keys)
	f.cure.EN += " " + p.Cure
	return f
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
