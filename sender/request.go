package sender

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechat/keyword"
)

// The reasons of requests that are wrong in themselves, as send_request.reason. They are final: the row
// cannot be changed, a new one is needed.
const (
	reasonNoRecipient       = "no_recipient"
	reasonSeveralRecipients = "several_recipients"
	reasonBadRecipient      = "bad_recipient"
	reasonUnknownTemplate   = "unknown_template"
	reasonBadData           = "bad_data"
	reasonBadLink           = "bad_link"
	reasonBadPriority       = "bad_priority"
	reasonUnknownAccount    = "unknown_account"
	reasonBadKeyword        = "bad_keyword"
)

var (
	idPattern         = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	templateIDPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)
)

// rejection is a request that can never be sent.
type rejection struct{ reason, text string }

// prepare turns a row into a job that lacks only its receiver's openid and its deadline. A row that cannot be
// sent, or must not be any more, gets a verdict instead.
func (a *account) prepare(ctx context.Context, row request) (bridge.Recipient, job, *result) {
	fail := func(rejected *rejection) (bridge.Recipient, job, *result) {
		r := row.end(statusFailed, rejected.reason, rejected.text)
		return bridge.Recipient{}, job{}, &r
	}
	if verdict := row.overdue(a.cfg.ResendWindow); verdict != nil {
		return bridge.Recipient{}, job{}, verdict
	}
	recipient, rejected := a.svc.recipient(row)
	if rejected != nil {
		return fail(rejected)
	}
	templateID, rejected := a.svc.templateID(row.Template, a.cfg.AppID)
	if rejected != nil {
		return fail(rejected)
	}
	values, rejected := readData(row)
	if rejected != nil {
		return fail(rejected)
	}
	link, rejected := a.svc.link(row)
	if rejected != nil {
		return fail(rejected)
	}
	d := draft{templateID: templateID, values: values}
	if a.svc.truncates(row.Template, templateID, a.cfg.AppID) {
		d.warn(keyword.Fit(d.values)...)
	}
	if verdict := a.catalog.validate(ctx, row, &d); verdict != nil {
		return bridge.Recipient{}, job{}, verdict
	}
	return recipient, job{row: row, warning: d.warning(), message: wechat.TemplateMessage{
		TemplateID: templateID, URL: row.URL.String, MiniProgram: link, Data: writeData(d.values),
		ClientMsgID: a.svc.clientMsgID(row.ID),
	}}, nil
}

// clockSlack is how far back the database's clock may go without a doubt about ages.
const clockSlack = 5 * time.Second

// overdue ends rows whose time has passed: expired ones, and those whose outcome has been uncertain for
// so long that WeChat would deliver the repetition as a second message.
func (r request) overdue(resendWindow time.Duration) *result {
	uncertain := r.InDoubtAge.Valid
	switch {
	case uncertain && (r.InDoubtAge.Int64 > resendWindow.Microseconds() || r.InDoubtAge.Int64 < -clockSlack.Microseconds()):
		// In the future it lies where the database's clock was set back: nobody knows how old it is.
		res := r.end(statusUnknown, "outcome_unknown",
			"an attempt was made whose outcome is not known, and it is too old to be repeated without the risk of a second message")
		return &res
	case uncertain && r.Expired:
		res := r.end(statusUnknown, "outcome_unknown",
			"expires_at has passed after an attempt whose outcome is not known")
		return &res
	case r.Expired:
		res := r.end(statusExpired, "expired", "expires_at passed before the message could be sent")
		return &res
	}
	return nil
}

// clientMsgID is the same for every attempt of a request and differs between databases. Its length is at
// most 12 + 1 + 13 bytes; WeChat's limit is not documented, 32 is safe.
func (s *Service) clientMsgID(id int64) string {
	return s.installation + "-" + strconv.FormatInt(id, 36)
}

func (s *Service) recipient(row request) (bridge.Recipient, *rejection) {
	var named []string
	for _, c := range []struct{ column, value string }{
		{"unionid", row.UnionID.String}, {"mini_openid", row.MiniOpenID.String}, {"openid", row.OpenID.String},
		{"mini_appid", row.MiniAppID.String},
	} {
		if c.value == "" {
			continue
		}
		if !idPattern.MatchString(c.value) {
			return bridge.Recipient{}, &rejection{reasonBadRecipient, fmt.Sprintf(
				"%s %q is not an id of WeChat's: 1 to 64 letters, digits, _ and -", c.column, c.value)}
		}
		if c.column != "mini_appid" {
			named = append(named, c.column)
		}
	}
	switch {
	case len(named) == 0:
		return bridge.Recipient{}, &rejection{reasonNoRecipient,
			"the row names no recipient: set one of unionid, mini_openid (with mini_appid) or openid"}
	case len(named) > 1:
		return bridge.Recipient{}, &rejection{reasonSeveralRecipients,
			"the row names its recipient by " + strings.Join(named, " and ") + ": set exactly one of them"}
	}
	rec := bridge.Recipient{UnionID: row.UnionID.String, MiniOpenID: row.MiniOpenID.String, OpenID: row.OpenID.String}
	if rec.MiniOpenID == "" {
		return rec, nil
	}
	var rejected *rejection
	rec.MiniAppID, rejected = s.miniAppID(row, "mini_openid")
	return rec, rejected
}

// miniAppID is the mini program a row speaks of: the one it names, or the only one there is.
func (s *Service) miniAppID(row request, column string) (string, *rejection) {
	configured := s.cfg.MiniAppIDs
	appid := row.MiniAppID.String
	switch {
	case appid == "" && len(configured) == 1:
		return configured[0], nil
	case appid == "":
		return "", &rejection{reasonBadRecipient, fmt.Sprintf(
			"%s needs mini_appid, because %d mini programs are configured", column, len(configured))}
	case !slices.Contains(configured, appid):
		return "", &rejection{reasonBadRecipient, fmt.Sprintf(
			"mini_appid %s is not configured under mini_programs", appid)}
	}
	return appid, nil
}

func (s *Service) templateID(name, appid string) (string, *rejection) {
	ids, ok := s.cfg.Templates[name]
	if !ok {
		if templateIDPattern.MatchString(name) {
			return name, nil
		}
		known := strings.Join(slices.Sorted(maps.Keys(s.cfg.Templates)), ", ")
		if known == "" {
			known = "none is configured"
		}
		return "", &rejection{reasonUnknownTemplate, fmt.Sprintf(
			"template %q is neither an alias of the configuration (%s) nor a template id of 43 characters",
			clip(name, 60), clip(known, 300))}
	}
	if ids[appid] == "" {
		return "", &rejection{reasonUnknownTemplate, fmt.Sprintf(
			"template %q has no template id for the official account %s in the configuration", name, appid)}
	}
	return ids[appid], nil
}

// truncates reports whether the free texts of a row are cut: as the alias says that it names, or, if it names the template by its
// id, as any alias of that template says.
func (s *Service) truncates(name, templateID, appid string) bool {
	if _, isAlias := s.cfg.Templates[name]; isAlias {
		return s.cfg.Truncate[name]
	}
	for alias, cut := range s.cfg.Truncate { // a few dozen at most
		if cut && s.cfg.Templates[alias][appid] == templateID {
			return true
		}
	}
	return false
}

func (s *Service) link(row request) (*wechat.MiniProgramLink, *rejection) {
	if row.URL.String != "" {
		u, err := url.Parse(row.URL.String)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return nil, &rejection{reasonBadLink, "url must be a whole address that begins with https:// or http://"}
		}
	}
	if row.MiniPath.String == "" {
		return nil, nil
	}
	appid, rejected := s.miniAppID(row, "mini_path")
	if rejected != nil {
		return nil, &rejection{reasonBadLink, rejected.text}
	}
	return &wechat.MiniProgramLink{AppID: appid, PagePath: row.MiniPath.String}, nil
}

// clip shortens a text for a message to people.
func clip(s string, runes int) string {
	r := []rune(s)
	if len(r) <= runes {
		return s
	}
	return string(r[:runes]) + "…"
}
