package intake

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/unionbridge/unionbridge/internal/applications"
)

// WeChat's codes for what a message can be wrong in.
const (
	codeRecipient = 40003
	codeTemplate  = 40036
	codeUnknown   = 40037
	codeURL       = 40039
	codeArgument  = 40097
	codePath      = 40165
	codePage      = 41030
	codeJump      = 40166
	codeData      = 47001
	codeKeyword   = 47003
)

// The widths of send_request's columns, in characters.
const (
	maxTemplate = 128
	maxURL      = 2048
	maxPath     = 1024
	maxWord     = 16
	maxKey      = 256 // of the application; the column has a hash of it
	maxData     = 64 << 10
)

func reject(code int, field, message string) *Rejection {
	return &Rejection{Code: code, Field: field, Message: message}
}

// check refuses what the columns cannot hold, or cannot mean anything. Nothing is cut.
func (m *Message) check(now time.Time) *Rejection {
	for _, check := range []func() *Rejection{
		m.Recipient.check, m.checkTemplate, m.checkLinks, m.checkOptions,
		func() *Rejection { return m.checkTimes(now) }, m.checkData,
	} {
		if why := check(); why != nil {
			return why
		}
	}
	return nil
}

func (r Recipient) check() *Rejection {
	named := ""
	for _, id := range []struct{ field, value string }{
		{"recipient.openid", r.OpenID}, {"recipient.mini_openid", r.MiniOpenID},
		{"recipient.unionid", r.UnionID}, {"recipient.mini_appid", r.MiniAppID},
	} {
		switch {
		case id.value == "":
			continue
		case !IsID(id.value):
			return reject(codeRecipient, id.field,
				"invalid openid: 1 to 64 letters, digits, hyphens and underscores")
		case id.field == "recipient.mini_appid":
		case named != "":
			return reject(codeRecipient, id.field, "invalid openid: the recipient is named by "+named+
				" already, give one of them")
		default:
			named = id.field
		}
	}
	if named == "" {
		return reject(codeRecipient, "recipient", "invalid openid: the message names no recipient")
	}
	return nil
}

var idPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// IsID reports whether WeChat may have given out an id. Blanks around it are wrong too.
func IsID(id string) bool { return idPattern.MatchString(id) }

func (m *Message) checkTemplate() *Rejection {
	switch {
	case m.Template == "":
		return reject(codeTemplate, "template", "invalid template_id size: it is missing")
	case !fits(m.Template, maxTemplate) || strings.TrimSpace(m.Template) != m.Template:
		return reject(codeUnknown, "template", "invalid template_id")
	case m.AppID != "" && !IsID(m.AppID):
		return reject(codeRecipient, "appid", "invalid appid")
	case len(m.Key) > maxKey || !utf8.ValidString(m.Key):
		return reject(codeArgument, "key", fmt.Sprintf("invalid args: at most %d bytes of UTF-8", maxKey))
	}
	return nil
}

// fits reports whether a column of so many characters holds the text as it is.
func fits(text string, most int) bool {
	return utf8.ValidString(text) && utf8.RuneCountInString(text) <= most &&
		!strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f })
}

func (m *Message) checkLinks() *Rejection {
	if m.URL != "" {
		u, err := url.Parse(m.URL)
		switch {
		case !fits(m.URL, maxURL):
			return reject(codeURL, "url", fmt.Sprintf("invalid url size: at most %d characters", maxURL))
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
			return reject(codeURL, "url",
				"invalid url size: it must be a whole address that begins with https:// or http://")
		}
	}
	switch {
	case !fits(m.MiniPath, maxPath):
		return reject(codePath, "mini_path",
			fmt.Sprintf("invalid weapp pagepath: at most %d characters", maxPath))
	case m.JumpAppID != "" && !IsID(m.JumpAppID):
		return reject(codeJump, "jump_appid", "invalid weapp appid")
	case !fits(m.Page, maxPath):
		return reject(codePage, "page", fmt.Sprintf("invalid page: at most %d characters", maxPath))
	}
	return nil
}

func (m *Message) checkOptions() *Rejection {
	for _, word := range []struct {
		field, value string
		known        []string
	}{
		{"lang", m.Lang, []string{"zh_CN", "en_US", "zh_HK", "zh_TW"}},
		{"mini_state", m.MiniState, []string{"formal", "trial", "developer"}},
		{"route", m.Route, []string{"official", "mini", "official,mini", "mini,official"}},
	} {
		if word.value != "" && !slices.Contains(word.known, word.value) {
			return reject(codeArgument, word.field, "invalid args: "+word.field+" is none of "+
				strings.Join(word.known, ", "))
		}
	}
	if p := m.Priority; p != nil && (*p < 0 || *p > 2) {
		return reject(codeArgument, "priority", "invalid args: priority is 0 urgent, 1 normal or 2 bulk")
	}
	return nil
}

// lastMoment is what a TIMESTAMP holds on every server, see database.SQLLastMoment.
func lastMoment() time.Time { return time.Date(2038, 1, 19, 0, 0, 0, 0, time.UTC) }

func (m *Message) checkTimes(now time.Time) *Rejection {
	for _, moment := range []struct {
		field string
		at    time.Time
	}{{"due_at", m.DueAt}, {"expires_at", m.ExpiresAt}} {
		if !moment.at.IsZero() && (moment.at.Unix() < 1 || !moment.at.Before(lastMoment())) {
			return reject(codeArgument, moment.field, "invalid args: "+moment.field+
				" is not between 1970 and 2038-01-19")
		}
	}
	switch {
	case m.ExpiresAt.IsZero():
		return nil
	case !m.ExpiresAt.After(now):
		return reject(codeArgument, "expires_at", "invalid args: expires_at has passed")
	case !m.DueAt.IsZero() && !m.ExpiresAt.After(m.DueAt):
		return reject(codeArgument, "expires_at", "invalid args: expires_at is not after due_at")
	}
	return nil
}

// checkData makes one line of the data. What its values may be is the channel's.
func (m *Message) checkData() *Rejection {
	var line bytes.Buffer
	switch {
	case len(m.Data) > maxData:
		return reject(codeKeyword, "data", fmt.Sprintf("argument invalid! data is above %d bytes", maxData))
	case !utf8.Valid(m.Data) || json.Compact(&line, m.Data) != nil || line.Bytes()[0] != '{':
		return reject(codeKeyword, "data", "argument invalid! data must be an object of the template's keys")
	case line.Len() == len("{}"):
		return reject(codeKeyword, "data", "argument invalid! data is empty")
	}
	m.Data = line.Bytes()
	return nil
}

// priority is a message's, never more urgent than its application's.
func (m *Message) priority(a *applications.Application) int {
	if m.Priority == nil {
		return a.Priority
	}
	return max(*m.Priority, a.Priority)
}
