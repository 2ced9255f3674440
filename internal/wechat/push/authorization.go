package push

import (
	"strings"
	"time"
	"unicode/utf8"
)

// The events about a person's data and about the account itself.
const (
	EventInfoModified = "user_info_modified"        // a person has changed their profile
	EventRevoked      = "user_authorization_revoke" // a person has withdrawn a permission
	EventPunished     = "wxa_punish_event"          // WeChat has punished the mini program

	// EventCancelled: a person has closed their WeChat account.
	EventCancelled = "user_authorization_cancellation"
)

// Authorization says what a person has changed about what the account may know of them. Ids that
// WeChat does not tell are "".
type Authorization struct {
	OpenID  string
	UnionID string
	AppID   string // of the account that the person has used
	Revoked string // WeChat's number of what was withdrawn, such as 8 for the phone number; or ""

	// PluginID and OpenPID name the person where they used the mini program's plug-in.
	PluginID string
	OpenPID  string
	At       time.Time // zero: not told
}

// The types of a Punishment on which an account can no longer send.
const (
	PunishmentFunctions = 2 // functions are banned, see Functions
	PunishmentShelf     = 3 // the mini program is off the shelf
	PunishmentAccount   = 4 // the account is banned
)

// Punishment says that WeChat has warned or punished the mini program.
type Punishment struct {
	ID        string
	Type      int // one of the constants, or another; 0: not told
	AppID     string
	Functions []string // that are banned, in WeChat's words
	Reason    string   // in WeChat's words
	At        time.Time
}

// Bounds of what WeChat's words may take in a log.
const (
	maxFunctions = 20
	maxWords     = 200 // runes
)

// authorizationEvent reads an event about a person's data into p.
func (p *Message) authorizationEvent(root *node, at time.Time) {
	a := Authorization{
		OpenID: p.OpenID, UnionID: id(root.get("UnionID")), AppID: id(root.get("AppID")),
		Revoked: id(root.get("RevokeInfo")), PluginID: id(root.get("PluginID")),
		OpenPID: id(root.get("OpenPID")), At: at,
	}
	if a.OpenID != "" || a.UnionID != "" || a.OpenPID != "" {
		p.Authorization = &a
	}
	p.Key += "\x00" + a.UnionID + "\x00" + a.Revoked
}

// punishment reads what became of the account. Its detail is an object, or one written as a text.
func (p *Message) punishment(root *node, at time.Time) {
	punished := &Punishment{
		ID: id(root.get("punish_id")), Type: int(min(number(root.get("event_type")), 1000)),
		AppID: id(root.get("appid")), Reason: words(root.get("illegal_reason")), At: at,
	}
	for _, detail := range root.all("detail") {
		if text := strings.TrimSpace(detail.text); strings.HasPrefix(text, "{") {
			inner, err := parseJSON([]byte(text))
			if err != nil {
				continue
			}
			detail = inner
		}
		for _, name := range detail.all("banned_function_names") {
			if text := words(name.text); text != "" && len(punished.Functions) < maxFunctions {
				punished.Functions = append(punished.Functions, text)
			}
		}
	}
	p.Punishment = punished
	p.Key += "\x00" + punished.ID
}

// isAuthorization reports whether an event is about what the account may know of a person. Such
// events come from a platform account and name the person in OpenID.
func isAuthorization(event string) bool {
	return strings.HasPrefix(event, "user_authorization_") || event == EventInfoModified
}

// id is a text that may be one of WeChat's, else "".
func id(text string) string {
	if !openidShape.MatchString(text) {
		return ""
	}
	return text
}

// words makes one bounded line of a text.
func words(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if utf8.RuneCountInString(text) <= maxWords {
		return text
	}
	return string([]rune(text)[:maxWords])
}
