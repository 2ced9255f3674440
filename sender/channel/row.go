package channel

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/unionbridge/unionbridge/bridge"
)

var (
	idPattern         = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	templateIDPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)
)

// Templates are the configured aliases: alias → appid → template id.
type Templates map[string]map[string]string

// Known returns the id of the template that a row of an account names, or "".
func (t Templates) Known(name, appid string) string {
	id, _ := t.ID(name, appid)
	return id
}

// Impossible reports whether a name is neither an alias nor looks like an id.
func (t Templates) Impossible(name string) bool {
	_, isAlias := t[name]
	return !isAlias && !templateIDPattern.MatchString(name)
}

// Unknown says that a name is impossible.
func (t Templates) Unknown(name string) string {
	known := cmp.Or(strings.Join(slices.Sorted(maps.Keys(t)), ", "), "none is configured")
	return fmt.Sprintf(
		"template %q is neither an alias of the configuration (%s) nor a template id of 43 characters",
		Clip(name, 60), Clip(known, 300))
}

// ID returns the id of the template that a row of an account names by an alias or by the id itself.
// Trailing spaces do not count, as they do not for SQL.
func (t Templates) ID(name, appid string) (string, *Rejection) {
	name = bridge.ID(name)
	ids, isAlias := t[name]
	switch {
	case t.Impossible(name):
		return "", Reject(ReasonUnknownTemplate, t.Unknown(name))
	case !isAlias:
		return name, nil
	case ids[appid] == "":
		return "", Reject(ReasonUnknownTemplate, fmt.Sprintf(
			"template %q has no template id for the account %s in the configuration",
			name, appid))
	}
	return ids[appid], nil
}

// MiniApps are the appids of the configured mini programs. A single one is the default.
type MiniApps []string

// Choose returns the mini program that a column is about: the one that is named, or the only one.
func (m MiniApps) Choose(named, column string) (string, *Rejection) {
	named = bridge.ID(named)
	switch {
	case named == "" && len(m) == 1:
		return m[0], nil
	case named == "":
		return "", Reject(ReasonBadRecipient, fmt.Sprintf(
			"%s needs mini_appid, because %d mini programs are configured", column, len(m)))
	case !slices.Contains(m, named):
		return "", Reject(ReasonBadRecipient, fmt.Sprintf(
			"mini_appid %s is not configured under mini_programs", named))
	}
	return named, nil
}

// Recipient checks whom the columns of a row name: exactly one person, by ids that WeChat may have
// given out. It fills in the default mini program.
func (m MiniApps) Recipient(r bridge.Recipient) (bridge.Recipient, *Rejection) {
	r = bridge.Recipient{UnionID: bridge.ID(r.UnionID), MiniAppID: bridge.ID(r.MiniAppID),
		MiniOpenID: bridge.ID(r.MiniOpenID), OpenID: bridge.ID(r.OpenID)}
	var named []string
	for _, c := range []struct{ column, value string }{
		{"unionid", r.UnionID}, {"mini_openid", r.MiniOpenID}, {"openid", r.OpenID},
		{"mini_appid", r.MiniAppID},
	} {
		switch {
		case c.value == "":
		case !idPattern.MatchString(c.value):
			return r, Reject(ReasonBadRecipient, fmt.Sprintf(
				"%s %q is not an id of WeChat's: 1 to 64 letters, digits, _ and -", c.column, c.value))
		case c.column != "mini_appid":
			named = append(named, c.column)
		}
	}
	switch {
	case len(named) == 0:
		return r, Reject(ReasonNoRecipient, "the row names no recipient: "+
			"set one of unionid, mini_openid (with mini_appid) or openid")
	case len(named) > 1:
		return r, Reject(ReasonSeveralRecipients, "the row names its recipient by "+
			strings.Join(named, " and ")+": set exactly one of them")
	case r.MiniOpenID == "":
		r.MiniAppID = "" // it belongs to mini_path then
		return r, nil
	}
	appid, rejection := m.Choose(r.MiniAppID, "mini_openid")
	r.MiniAppID = appid
	return r, rejection
}
