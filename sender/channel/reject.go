package channel

import (
	"fmt"
	"slices"
	"strings"

	"github.com/unionbridge/unionbridge/internal/wechat/keyword"
)

// The reasons of requests that are wrong in themselves, as send_request.reason. They are final, but
// for a template that is only missing so far: a row cannot be changed, a new one is needed.
const (
	ReasonBadRecipient    = "bad_recipient"
	ReasonUnknownTemplate = "unknown_template"
	ReasonBadData         = "bad_data"
	ReasonBadLink         = "bad_link"
	ReasonBadKeyword      = "bad_keyword"
)

// Reject is a final Rejection.
func Reject(reason, message string) *Rejection {
	return &Rejection{Reason: reason, Message: message}
}

// MiniApps are the appids of the configured mini programs. A single one is the default.
type MiniApps []string

// Choose returns the mini program that a row speaks of in a column: the one it names, or the only
// one there is.
func (m MiniApps) Choose(named, column string) (string, *Rejection) {
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

// maxProblems are named one by one.
const maxProblems = 20

// Describe makes one text of problems, for a column; "" of none. It holds keys, never values.
func Describe(problems []keyword.Problem) string {
	var texts []string
	for i, p := range problems {
		if i == maxProblems {
			texts = append(texts, fmt.Sprintf("and %d more", len(problems)-i))
			break
		}
		p.Key = Clip(p.Key, 60) // a row may carry any key
		texts = append(texts, p.String())
	}
	return Clip(strings.Join(texts, "; "), 1000)
}

// Clip shortens a text for people.
func Clip(s string, runes int) string {
	r := []rune(s)
	if len(r) <= runes {
		return s
	}
	return string(r[:runes]) + "…"
}
