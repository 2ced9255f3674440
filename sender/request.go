package sender

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/wechat"
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
)

// maxData is the longest data in bytes. A template has at most a few dozen keywords of at most 32
// characters; longer data is a mistake, and 500 of them at a time would not fit into memory.
const maxData = 16 << 10

var (
	idPattern         = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	templateIDPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)
)

// wrong is a request that can never be sent.
type wrong struct{ reason, text string }

// examine turns a row into a message that lacks only its receiver's openid. A row that cannot be sent,
// or must not be any more, gets a verdict instead.
func (s *Service) examine(row request, a Account) (bridge.Recipient, wechat.TemplateMessage, *result) {
	fail := func(w *wrong) (bridge.Recipient, wechat.TemplateMessage, *result) {
		r := row.end(statusFailed, w.reason, w.text)
		return bridge.Recipient{}, wechat.TemplateMessage{}, &r
	}
	if verdict := row.overdue(); verdict != nil {
		return bridge.Recipient{}, wechat.TemplateMessage{}, verdict
	}
	recipient, w := s.recipient(row)
	if w != nil {
		return fail(w)
	}
	templateID, w := s.templateID(row.Template, a.AppID)
	if w != nil {
		return fail(w)
	}
	data, w := normalise(row)
	if w != nil {
		return fail(w)
	}
	link, w := s.link(row)
	if w != nil {
		return fail(w)
	}
	return recipient, wechat.TemplateMessage{
		TemplateID: templateID, URL: row.URL.String, MiniProgram: link, Data: data,
		ClientMsgID: s.clientMsgID(row.ID),
	}, nil
}

// overdue ends rows whose time has passed: expired ones, and those whose outcome has been uncertain for
// so long that WeChat would deliver the repetition as a second message.
func (r request) overdue() *result {
	uncertain := r.UncertainAge.Valid
	switch {
	case uncertain && r.UncertainAge.Int64 > resendWindow.Microseconds():
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

func (s *Service) recipient(row request) (bridge.Recipient, *wrong) {
	var named []string
	for _, c := range []struct{ column, value string }{
		{"unionid", row.UnionID.String}, {"mini_openid", row.MiniOpenID.String}, {"openid", row.OpenID.String},
		{"mini_appid", row.MiniAppID.String},
	} {
		if c.value == "" {
			continue
		}
		if !idPattern.MatchString(c.value) {
			return bridge.Recipient{}, &wrong{reasonBadRecipient, fmt.Sprintf(
				"%s %q is not an id of WeChat's: 1 to 64 letters, digits, _ and -", c.column, c.value)}
		}
		if c.column != "mini_appid" {
			named = append(named, c.column)
		}
	}
	switch {
	case len(named) == 0:
		return bridge.Recipient{}, &wrong{reasonNoRecipient,
			"the row names no recipient: set one of unionid, mini_openid (with mini_appid) or openid"}
	case len(named) > 1:
		return bridge.Recipient{}, &wrong{reasonSeveralRecipients,
			"the row names its recipient by " + strings.Join(named, " and ") + ": set exactly one of them"}
	}
	rec := bridge.Recipient{UnionID: row.UnionID.String, MiniOpenID: row.MiniOpenID.String, OpenID: row.OpenID.String}
	if rec.MiniOpenID == "" {
		return rec, nil
	}
	var w *wrong
	rec.MiniAppID, w = s.miniAppID(row, "mini_openid")
	return rec, w
}

// miniAppID is the mini program a row speaks of: the one it names, or the only one there is.
func (s *Service) miniAppID(row request, column string) (string, *wrong) {
	configured := s.cfg.MiniAppIDs
	appid := row.MiniAppID.String
	switch {
	case appid == "" && len(configured) == 1:
		return configured[0], nil
	case appid == "":
		return "", &wrong{reasonBadRecipient, fmt.Sprintf(
			"%s needs mini_appid, because %d mini programs are configured", column, len(configured))}
	case !slices.Contains(configured, appid):
		return "", &wrong{reasonBadRecipient, fmt.Sprintf(
			"mini_appid %s is not configured under mini_programs", appid)}
	}
	return appid, nil
}

func (s *Service) templateID(name, appid string) (string, *wrong) {
	ids, ok := s.cfg.Templates[name]
	if !ok {
		if templateIDPattern.MatchString(name) {
			return name, nil
		}
		known := strings.Join(slices.Sorted(maps.Keys(s.cfg.Templates)), ", ")
		if known == "" {
			known = "none is configured"
		}
		return "", &wrong{reasonUnknownTemplate, fmt.Sprintf(
			"template %q is neither an alias of the configuration (%s) nor a template id of 43 characters",
			clip(name, 60), clip(known, 300))}
	}
	if ids[appid] == "" {
		return "", &wrong{reasonUnknownTemplate, fmt.Sprintf(
			"template %q has no template id for the official account %s in the configuration", name, appid)}
	}
	return ids[appid], nil
}

func (s *Service) link(row request) (*wechat.MiniProgramLink, *wrong) {
	if row.URL.String != "" {
		u, err := url.Parse(row.URL.String)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return nil, &wrong{reasonBadLink, "url must be a whole address that begins with https:// or http://"}
		}
	}
	if row.MiniPath.String == "" {
		return nil, nil
	}
	appid, w := s.miniAppID(row, "mini_path")
	if w != nil {
		return nil, &wrong{reasonBadLink, w.text}
	}
	return &wechat.MiniProgramLink{AppID: appid, PagePath: row.MiniPath.String}, nil
}

// normalise brings data into the form that WeChat takes, {"thing1":{"value":"x"}}. Producers may write
// {"thing1":"x"}, and numbers for strings.
func normalise(row request) (json.RawMessage, *wrong) {
	if !row.Data.Valid {
		return nil, &wrong{reasonBadData, fmt.Sprintf("data has %d bytes, at most %d are allowed", row.DataBytes, maxData)}
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal([]byte(row.Data.String), &fields); err != nil || fields == nil {
		return nil, &wrong{reasonBadData, `data must be a JSON object such as {"thing1":"text"}, not ` + kindOf(row.Data.String)}
	}
	if len(fields) == 0 {
		return nil, &wrong{reasonBadData, "data is empty: give a value for each keyword of the template"}
	}
	var out []byte
	for i, key := range slices.Sorted(maps.Keys(fields)) {
		value, ok := fieldValue(fields[key])
		if !ok {
			return nil, &wrong{reasonBadData, fmt.Sprintf(
				`data.%s must be a string, a number or {"value":"…"}, not %s`, clip(key, 60), kindOf(string(fields[key])))}
		}
		// encoding/json would write some characters as \u escapes, which WeChat may refuse.
		out = wechat.AppendString(append(out, "{,"[min(i, 1)]), key)
		out = append(wechat.AppendString(append(out, `:{"value":`...), value), '}')
	}
	return append(out, '}'), nil
}

// fieldValue reads "x", 12.50 or {"value": "x"}; a number keeps its digits as they were written.
func fieldValue(raw json.RawMessage) (string, bool) {
	var object struct {
		Value *json.RawMessage `json:"value"`
	}
	if raw[0] == '{' {
		if json.Unmarshal(raw, &object) != nil || object.Value == nil {
			return "", false
		}
		raw = bytes.TrimSpace(*object.Value)
	}
	var text string
	if json.Unmarshal(raw, &text) == nil && raw[0] == '"' {
		return text, true
	}
	var number json.Number
	if json.Unmarshal(raw, &number) == nil && number != "" {
		return number.String(), true
	}
	return "", false
}

func kindOf(text string) string {
	switch text = strings.TrimSpace(text); {
	case text == "null":
		return "null"
	case text == "true", text == "false":
		return "a boolean"
	case strings.HasPrefix(text, "["):
		return "an array"
	case strings.HasPrefix(text, `"`):
		return "a string"
	case strings.HasPrefix(text, "{"):
		return "an object"
	}
	return "a number"
}

// clip shortens a text for a message to people.
func clip(s string, runes int) string {
	r := []rune(s)
	if len(r) <= runes {
		return s
	}
	return string(r[:runes]) + "…"
}
