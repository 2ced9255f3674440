package catalog

import (
	"context"
	"fmt"
	"slices"

	"github.com/unionbridge/unionbridge/internal/wechat/keyword"
	"github.com/unionbridge/unionbridge/sender/channel"
)

// Message is the part of a message that the catalog looks at and may change.
type Message struct {
	TemplateID string
	Values     []keyword.Value
	Warnings   []keyword.Problem // what was changed of it, or is doubtful about it
	// Redelivery: an earlier attempt may have delivered it. What may be under way is sent again as
	// it is, and never rejected here.
	Redelivery bool
}

// Warn adds to the warnings.
func (m *Message) Warn(problems ...keyword.Problem) { m.Warnings = append(m.Warnings, problems...) }

// Validate checks a message against its template. It leaves out the keys that the template does not
// have.
func (c *Catalog) Validate(ctx context.Context, m *Message) *channel.Rejection {
	if c == nil {
		return nil
	}
	keywords, found := c.lookup(ctx, m.TemplateID)
	if found == absent && !m.Redelivery {
		found = c.classify(m.TemplateID)
	}
	switch {
	case found == unchecked || m.Redelivery && found != listed:
		return nil
	case found == refreshing:
		return &channel.Rejection{After: refreshWait,
			Message: "the account's templates are being read again, to look for this one"}
	case found == absent:
		return &channel.Rejection{After: RetryAfter, Reason: channel.ReasonUnknownTemplate,
			Message: fmt.Sprintf("the official account's list has no template %s "+
				"(console, 模板消息, 我的模板); it is looked for again, and then WeChat is asked",
				m.TemplateID)}
	case found == gone:
		return channel.Reject(channel.ReasonUnknownTemplate, fmt.Sprintf(
			"the official account has no template %s (console, 模板消息, 我的模板): "+
				"its list lacks it, and WeChat refused it (40037)", m.TemplateID))
	case keywords.Empty():
		return nil
	}
	m.leaveOut(keywords)
	m.Warn(keywords.Doubts(m.Values)...)
	problems := keywords.Check(m.Values)
	if len(problems) == 0 || m.Redelivery {
		return nil
	}
	return channel.Reject(channel.ReasonBadKeyword, channel.Describe(problems))
}

// leaveOut drops the values that the template has no place for: nobody would see them, and whether
// WeChat ignores or refuses them is not known.
func (m *Message) leaveOut(keywords *keyword.Set) {
	m.Values = slices.DeleteFunc(m.Values, func(v keyword.Value) bool {
		switch {
		case keywords.Has(v.Key):
			return false
		case v.Key == "first" || v.Key == "remark":
			m.Warn(keyword.NotShown(v.Key))
		default:
			m.Warn(keyword.Problem{Key: v.Key, Rule: "is no keyword of the template and was left out"})
		}
		return true
	})
}
