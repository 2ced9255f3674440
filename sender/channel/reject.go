package channel

import (
	"fmt"
	"strings"

	"github.com/unionbridge/unionbridge/internal/wechat/keyword"
)

// The reasons of requests that are wrong in themselves, as send_request.reason. They are final, but
// for a template that is only missing so far: a row cannot be changed, a new one is needed.
const (
	ReasonNoRecipient       = "no_recipient"
	ReasonSeveralRecipients = "several_recipients"
	ReasonBadRecipient      = "bad_recipient"
	ReasonUnknownTemplate   = "unknown_template"
	ReasonBadData           = "bad_data"
	ReasonBadLink           = "bad_link"
	ReasonBadKeyword        = "bad_keyword"
)

// Reject is a final Rejection.
func Reject(reason, message string) *Rejection {
	return &Rejection{Reason: reason, Message: message}
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
