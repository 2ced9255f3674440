package minisubscribe

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechat/keyword"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/channel/catalog"
)

// draft is a message that lacks only its receiver's openid.
type draft struct {
	message wechat.SubscribeMessage
	warning string
}

func (d *draft) TemplateID() string { return d.message.TemplateID }
func (d *draft) Warning() string    { return d.warning }

// The versions of a mini program that a message may open.
const (
	stateFormal    = "formal"
	stateTrial     = "trial"
	stateDeveloper = "developer"
)

func languages() []string { return []string{"zh_CN", "en_US", "zh_HK", "zh_TW"} }

// Prepare checks what a row says, with the catalog if there is one. url and mini_path are of other
// channels: a row may have a route with both.
func (c *Channel) Prepare(
	ctx context.Context, row channel.Content,
) (channel.Draft, *channel.Rejection) {
	m, message, why := c.message(row)
	switch {
	case why != nil:
	case c.cfg.Preflight:
		why = c.catalog.Validate(ctx, &m)
	default:
		c.catalog.Load(ctx)
	}
	if why != nil {
		return nil, why
	}
	message.Data = wechat.TemplateData(m.Values)
	return &draft{message: message, warning: warnings(message, m.Warnings)}, nil
}

// Preview says what Prepare would reject, as far as is known.
func (c *Channel) Preview(row channel.Content) *channel.Rejection {
	m, _, why := c.message(row)
	if why != nil || !c.cfg.Preflight {
		return why
	}
	return c.catalog.Peek(&m)
}

// Keys returns the keys of a template, as far as they are known.
func (c *Channel) Keys(templateID string) []string { return c.catalog.Keys(templateID) }

// message reads what a row says.
func (c *Channel) message(
	row channel.Content,
) (m catalog.Message, message wechat.SubscribeMessage, why *channel.Rejection) {
	values, why := channel.ParseData(row.Data)
	if why != nil {
		return m, message, why
	}
	alias := c.cfg.Aliases[row.Template] // without one: nothing is preset
	if values, why = rename(values, alias.Keys); why != nil {
		return m, message, why
	}
	message = wechat.SubscribeMessage{
		TemplateID: row.TemplateID, Page: cmp.Or(row.Page, alias.Page),
		State: cmp.Or(row.State, alias.State, stateFormal), Lang: cmp.Or(row.Lang, alias.Lang),
	}
	if why := checkOptions(message); why != nil {
		return m, message, why
	}
	m = catalog.Message{TemplateID: row.TemplateID, Values: values, Redelivery: row.Redelivery}
	if c.truncates(row) {
		m.Warn(keyword.Fit(m.Values)...)
	}
	return m, message, nil
}

// rename gives the values the keys of this template, where the alias has names of its own. Keys
// that it does not name stay, so that a row may use the template's own.
func rename(
	values []keyword.Value, keys map[string]string,
) ([]keyword.Value, *channel.Rejection) {
	if len(keys) == 0 {
		return values, nil
	}
	from := make(map[string]string, len(values))
	for i, v := range values {
		key := cmp.Or(keys[v.Key], v.Key)
		if other, twice := from[key]; twice {
			return nil, channel.RejectField(channel.ReasonBadData, "data."+channel.Clip(v.Key, 60), fmt.Sprintf(
				"data.%s and data.%s are both the template's %s: give one of them",
				channel.Clip(other, 60), channel.Clip(v.Key, 60), channel.Clip(key, 60)))
		}
		from[key], values[i].Key = v.Key, key
	}
	slices.SortFunc(values, func(a, b keyword.Value) int { return strings.Compare(a.Key, b.Key) })
	return values, nil
}

func checkOptions(m wechat.SubscribeMessage) *channel.Rejection {
	path, _, _ := strings.Cut(m.Page, "?") // the query may hold an address
	switch {
	case strings.Contains(path, "://"):
		return channel.RejectField(channel.ReasonBadLink, "page",
			"page must be a path in this mini program such as pages/order?id=1, without a host")
	case !slices.Contains([]string{stateFormal, stateTrial, stateDeveloper}, m.State):
		return channel.RejectField(channel.ReasonBadOption, "mini_state", fmt.Sprintf(
			"mini_state %q is none of formal, trial and developer", channel.Clip(m.State, 60)))
	case m.Lang != "" && !slices.Contains(languages(), m.Lang):
		return channel.RejectField(channel.ReasonBadOption, "lang", fmt.Sprintf(
			"lang %q is none of %s", channel.Clip(m.Lang, 60), strings.Join(languages(), ", ")))
	}
	return nil
}

// warnings are the catalog's, and that of a version which a row was left on by mistake.
func warnings(m wechat.SubscribeMessage, problems []keyword.Problem) string {
	texts := make([]string, 0, 2)
	if m.State != stateFormal {
		texts = append(texts, "mini_state is "+m.State+
			": only the mini program's testers can open the page")
	}
	if text := channel.Describe(problems); text != "" {
		texts = append(texts, text)
	}
	return strings.Join(texts, "; ")
}

// truncates reports whether the free texts of a row are cut: as the alias says that it names, or,
// if it names the template by its id, as any alias of that template says.
func (c *Channel) truncates(row channel.Content) bool {
	if alias, ok := c.cfg.Aliases[row.Template]; ok {
		return alias.Truncate
	}
	for _, alias := range c.cfg.Aliases { // a few dozen at most
		if alias.Truncate && alias.ID == row.TemplateID {
			return true
		}
	}
	return false
}
