package channel

import (
	"strings"
	"testing"

	"github.com/unionbridge/unionbridge/bridge"
)

// TestRecipient: exactly one person, named by ids that WeChat may have given out.
func TestRecipient(t *testing.T) {
	one, two := MiniApps{"wxmini"}, MiniApps{"wxmini", "wxother"}
	for _, c := range []struct {
		name   string
		apps   MiniApps
		row    bridge.Recipient
		want   bridge.Recipient
		reason string
	}{
		{"unionid", one, bridge.Recipient{UnionID: "u"}, bridge.Recipient{UnionID: "u"}, ""},
		{"openid", one, bridge.Recipient{OpenID: "o"}, bridge.Recipient{OpenID: "o"}, ""},
		{"unionid and a page's mini program", two, bridge.Recipient{UnionID: "u", MiniAppID: "wxother"},
			bridge.Recipient{UnionID: "u"}, ""},
		{"the only mini program", one, bridge.Recipient{MiniOpenID: "m"},
			bridge.Recipient{MiniAppID: "wxmini", MiniOpenID: "m"}, ""},
		{"one of two", two, bridge.Recipient{MiniAppID: "wxother", MiniOpenID: "m"},
			bridge.Recipient{MiniAppID: "wxother", MiniOpenID: "m"}, ""},
		{"which of two", two, bridge.Recipient{MiniOpenID: "m"}, bridge.Recipient{}, ReasonBadRecipient},
		{"nobody", one, bridge.Recipient{MiniAppID: "wxmini"}, bridge.Recipient{}, ReasonNoRecipient},
		{"two people", one, bridge.Recipient{UnionID: "u", OpenID: "o"}, bridge.Recipient{},
			ReasonSeveralRecipients},
		{"blanks at the end", two, bridge.Recipient{MiniAppID: "wxother ", MiniOpenID: "m  "},
			bridge.Recipient{MiniAppID: "wxother", MiniOpenID: "m"}, ""},
		{"empty and blank is not given", one, bridge.Recipient{UnionID: " ", OpenID: "o "},
			bridge.Recipient{OpenID: "o"}, ""},
		{"blanks only", one, bridge.Recipient{UnionID: "  "}, bridge.Recipient{}, ReasonNoRecipient},
		{"a blank before", one, bridge.Recipient{UnionID: " u"}, bridge.Recipient{}, ReasonBadRecipient},
		{"a line break", one, bridge.Recipient{UnionID: "u\n"}, bridge.Recipient{}, ReasonBadRecipient},
		{"too long", one, bridge.Recipient{OpenID: strings.Repeat("o", 65)}, bridge.Recipient{},
			ReasonBadRecipient},
	} {
		got, rejection := c.apps.Recipient(c.row)
		if rejection != nil {
			if rejection.Reason != c.reason {
				t.Errorf("%s: %+v, want %q", c.name, *rejection, c.reason)
			}
			continue
		}
		if got != c.want || c.reason != "" {
			t.Errorf("%s: %+v, want %+v %s", c.name, got, c.want, c.reason)
		}
	}
}

func TestMiniApps(t *testing.T) {
	for _, c := range []struct {
		configured  MiniApps
		named, want string
		rejected    string
	}{
		{MiniApps{"a"}, "", "a", ""},
		{MiniApps{"a", "b"}, "b", "b", ""},
		{MiniApps{"a", "b"}, "", "", "mini_path needs mini_appid, because 2 mini programs are configured"},
		{nil, "", "", "mini_path needs mini_appid, because 0 mini programs are configured"},
		{MiniApps{"a"}, "b", "", "mini_appid b is not configured under mini_programs"},
	} {
		got, why := c.configured.Choose(c.named, "mini_path")
		rejected := ""
		if why != nil {
			rejected = why.Message
		}
		if got != c.want || rejected != c.rejected {
			t.Errorf("%q of %q: %q (%s), want %q (%s)",
				c.named, c.configured, got, rejected, c.want, c.rejected)
		}
	}
}

// TestTemplates: an alias has an id for an account or none; anything of 43 characters is an id.
func TestTemplates(t *testing.T) {
	id, other := strings.Repeat("a", 43), strings.Repeat("b", 43)
	templates := Templates{"order": {"wx1": id}}
	for _, c := range []struct{ name, appid, want, text string }{
		{"order", "wx1", id, ""},
		{other, "wx1", other, ""},
		{"order", "wx2", "", "no template id for the account wx2"},
		{"nope", "wx1", "", "(order)"},
	} {
		got, rejection := templates.ID(c.name, c.appid)
		if got != c.want || templates.Known(c.name, c.appid) != c.want || (rejection == nil) != (c.text == "") {
			t.Errorf("%s of %s: %q, %+v", c.name, c.appid, got, rejection)
		}
		if rejection != nil && !strings.Contains(rejection.Message, c.text) {
			t.Errorf("%s of %s: %s", c.name, c.appid, rejection.Message)
		}
	}
}

// TestTemplateNames: case counts, and spaces at the end do not, as in SQL.
func TestTemplateNames(t *testing.T) {
	id := strings.Repeat("i", 43)
	templates := Templates{"order": {"wx": "the-id"}, "other": {"wy": "another"}}
	for _, c := range []struct {
		name, want string
		impossible bool
	}{
		{"order", "the-id", false}, {"order  ", "the-id", false}, {"ORDER", "", true},
		{" order", "", true}, {"other", "", false}, {id, id, false}, {id + " ", id, false},
		{id + "i", "", true}, {"", "", true},
	} {
		got, rejection := templates.ID(c.name, "wx")
		if got != c.want || (rejection == nil) != (c.want != "") {
			t.Errorf("%q: %q, %v; want %q", c.name, got, rejection, c.want)
		}
		if got := templates.Impossible(bridge.ID(c.name)); got != c.impossible {
			t.Errorf("%q: impossible %t", c.name, got)
		}
	}
}
