package checker

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// Verdict is what a history comes to.
type Verdict struct {
	Committed, Unconfirmed, Lost int // requests
	Status                       map[string]int
	Repeats                      int // posts of a request beyond its first
	Slowest                      string

	Wrong      int // messages with a violation of their own
	Duplicates int // messages beyond the first of a request
	Twice      int // requests with more than one message
	Missing    int // requests with no message that ought to have one

	Violations []Violation
}

// Violation is a broken promise, with what is known of the request.
type Violation struct {
	Order string // empty: no single request
	Text  string
	Story string
}

func (v Violation) String() string { return strings.TrimSpace(v.Order + " " + v.Text) }

// Check holds a history against the promises.
func Check(h History) Verdict {
	c := &check{
		History: h, Verdict: Verdict{Status: map[string]int{}},
		rowOf: map[string]Row{}, messagesOf: map[string][]wechatsim.Message{},
		postsOf: map[string][]Post{},
	}
	for _, m := range h.Messages {
		order := Order(m.Data)
		c.messagesOf[order] = append(c.messagesOf[order], m)
	}
	for _, p := range h.Posts {
		c.postsOf[p.Order] = append(c.postsOf[p.Order], p)
	}
	c.checkRows()
	for _, order := range slices.Sorted(maps.Keys(h.Requests)) {
		c.checkRequest(h.Requests[order])
	}
	for _, order := range slices.Sorted(maps.Keys(c.messagesOf)) {
		c.checkMessages(order)
	}
	for _, order := range slices.Sorted(maps.Keys(c.postsOf)) {
		c.checkPosts(order)
	}
	c.checkReceipts()
	c.findSlowest()
	return c.Verdict
}

type check struct {
	History
	Verdict
	rowOf      map[string]Row
	messagesOf map[string][]wechatsim.Message
	postsOf    map[string][]Post
}

func (c *check) violate(order, format string, args ...any) {
	// A broken program breaks a promise for each request; nobody reads 200,000 stories.
	const most = 100
	story := ""
	if order != "" && len(c.Violations) < most {
		story = c.story(order)
	}
	c.Violations = append(c.Violations, Violation{order, fmt.Sprintf(format, args...), story})
}

// checkRows: each row belongs to a request, exists once, and has a complete outcome.
func (c *check) checkRows() {
	for _, r := range c.Rows {
		c.Status[r.Status]++
		want, ours := c.Requests[r.Order]
		if !ours {
			c.violate(r.Order, "row %d belongs to no request", r.ID)
		}
		if first, again := c.rowOf[r.Order]; again {
			c.violate(r.Order, "rows %d and %d are one request", first.ID, r.ID)
			continue
		}
		c.rowOf[r.Order] = r
		switch {
		case want.Waits:
			if r.Status != "waiting" || r.Reason == "" {
				c.violate(r.Order, "the recipient cannot be reached, and row %d is %s with reason %q",
					r.ID, r.Status, r.Reason)
			}
		case r.Status == "pending" || r.Status == "waiting":
			c.violate(r.Order, "row %d is still %s", r.ID, r.Status)
		case !r.Finished.Valid || r.Lease != "":
			c.violate(r.Order, "row %d is %s, but finished_at or lease says otherwise", r.ID, r.Status)
		case (r.Status == "sent") != (r.MsgID != 0):
			c.violate(r.Order, "row %d is %s with msgid %d", r.ID, r.Status, r.MsgID)
		}
	}
}

// checkRequest: what was committed exists, and what was withdrawn in time is cancelled.
func (c *check) checkRequest(r Request) {
	got, exists := c.rowOf[r.Order]
	switch {
	case r.Committed && !exists:
		c.Lost++
		c.violate(r.Order, "committed, and lost")
	case r.Committed:
		c.Committed++
	default:
		c.Unconfirmed++
	}
	if r.Withdrawn && c.Times != nil && exists && got.Status != "cancelled" {
		c.violate(r.Order, "withdrawn before it was due, but row %d is %s", got.ID, got.Status)
	}
	if len(c.messagesOf[r.Order]) > 0 {
		return
	}
	if exists && got.Status == "sent" {
		c.violate(r.Order, "row %d is sent, but nothing arrived", got.ID)
	}
	if r.Committed && !r.Waits && !r.Withdrawn {
		c.Missing++
		if c.Undisturbed {
			c.violate(r.Order, "nothing arrived; row %d is %s %s", got.ID, got.Status, got.Reason)
		}
	}
}

// checkMessages: a message belongs to a request and arrived once, at the right person, with the
// right text, in its time, and its row knows.
func (c *check) checkMessages(order string) {
	messages := c.messagesOf[order]
	want, ours := c.Requests[order]
	row, exists := c.rowOf[order]
	if !ours || !exists {
		c.Wrong += len(messages)
		c.violate(order, "%d messages that no row asks for", len(messages))
		return
	}
	if len(messages) > 1 {
		c.Twice++
		c.Duplicates += len(messages) - 1
		var ids []string
		for _, m := range messages {
			ids = append(ids, m.ClientMsgID)
		}
		c.violate(order, "arrived %d times, under the ids %s", len(messages), strings.Join(ids, ", "))
	}
	for i, m := range messages {
		before := len(c.Violations)
		if i == 0 && row.Status != "sent" && (row.Status != "unknown" || c.Undisturbed) {
			c.violate(order, "arrived, but row %d is %s", row.ID, row.Status)
		}
		if want.Waits {
			c.violate(order, "arrived at somebody who cannot be reached")
		}
		c.checkMessage(want, row, m)
		if i == 0 && len(c.Violations) > before { // the others count as duplicates
			c.Wrong++
		}
	}
}

func (c *check) checkMessage(want Request, row Row, m wechatsim.Message) {
	to := want.Recipient
	if m.Person != to.Person || m.UnionID != to.UnionID || to.OpenID != "" && m.OpenID != to.OpenID {
		c.violate(want.Order, "went to person %d (unionid %s, openid %s) instead of %d (%s, %s)",
			m.Person, m.UnionID, m.OpenID, to.Person, to.UnionID, to.OpenID)
	}
	if c.templates()[m.AppID] != m.TemplateID {
		c.violate(want.Order, "went out through %s with template %s", m.AppID, m.TemplateID)
	}
	if row.Status == "sent" && row.AppID != m.AppID {
		c.violate(want.Order, "row %d says that account %q sent it, %s did", row.ID, row.AppID, m.AppID)
	}
	if got := Values(m.Data); !maps.Equal(got, want.Text) {
		c.violate(want.Order, "arrived as %s", m.Data)
	}
	if row.Status == "sent" && row.SentOpenID != m.OpenID {
		c.violate(want.Order, "row %d says that it was sent to %s, it went to %s", row.ID,
			row.SentOpenID, m.OpenID)
	}
	if row.Status == "sent" && row.MsgID != m.MsgID && !c.NewIDs {
		c.violate(want.Order, "row %d says msgid %d, it was %d", row.ID, row.MsgID, m.MsgID)
	}
	if c.Times == nil {
		return
	}
	if row.Expires.Valid && m.Time.After(row.Expires.Time.Add(c.Times.Overdue)) {
		c.violate(want.Order, "arrived %s after its expires_at", m.Time.Sub(row.Expires.Time))
	}
	// Both clocks are this machine's; the column holds milliseconds.
	if due := row.Created.Add(want.Due - 5*time.Millisecond); m.Time.Before(due) {
		c.violate(want.Order, "arrived %s before it was due", due.Sub(m.Time))
	}
}

// checkPosts: a request has one client_msg_id, and is repeated only while WeChat would drop the
// second message.
func (c *check) checkPosts(order string) {
	c.Repeats += len(c.postsOf[order]) - 1
	posts := slices.Clone(c.postsOf[order])
	slices.SortFunc(posts, func(a, b Post) int { return a.At.Compare(b.At) })
	subscribe := func(p Post) bool { return p.Subscribe }
	c.checkSubscribePosts(order, slices.DeleteFunc(slices.Clone(posts), not(subscribe)))
	posts = slices.DeleteFunc(posts, subscribe)
	if len(posts) == 0 {
		return
	}
	first, last := posts[0], posts[len(posts)-1]
	for _, p := range posts[1:] {
		if p.ClientMsgID != first.ClientMsgID {
			c.violate(order, "posted under the ids %s and %s", first.ClientMsgID, p.ClientMsgID)
			break
		}
	}
	// Repeating what WeChat has refused for certain is never unsafe. uncertain_at is the beginning
	// of the first attempt that is in doubt.
	inDoubt := c.rowOf[order].InDoubt
	if !inDoubt.Valid || c.Times == nil {
		return
	}
	if apart := last.At.Sub(inDoubt.Time); apart > c.Times.Window+c.Times.Slack {
		c.violate(order, "posted again %s after an attempt in doubt, the window is %s",
			apart.Round(time.Millisecond), c.Times.Window)
	}
}

// checkSubscribePosts: of subscribe messages WeChat drops no second one, so after an attempt in doubt
// there is none. uncertain_at is the moment of that attempt's claim.
func (c *check) checkSubscribePosts(order string, posts []Post) {
	inDoubt := c.rowOf[order].InDoubt
	if !inDoubt.Valid || c.Times == nil {
		return
	}
	later := slices.DeleteFunc(posts, func(p Post) bool { return p.At.Before(inDoubt.Time) })
	if len(later) > 1 {
		c.violate(order, "posted %d times as a subscribe message after the claim of an attempt in doubt",
			len(later))
	}
}

func not(f func(Post) bool) func(Post) bool { return func(p Post) bool { return !f(p) } }

// checkReceipts: each stored receipt was pushed, and each answered push is stored.
func (c *check) checkReceipts() {
	if c.Receipts == nil && !c.AllReceipts {
		return
	}
	known := map[int64]Receipt{}
	for _, r := range c.Receipts {
		known[r.MsgID] = r
	}
	for _, m := range c.Messages {
		r, ok := known[m.MsgID]
		switch {
		case !ok && c.AllReceipts:
			c.violate(Order(m.Data), "the receipt of msgid %d is lost", m.MsgID)
		case ok && r.OpenID != m.OpenID:
			c.violate(Order(m.Data), "the receipt of msgid %d names %s", m.MsgID, r.OpenID)
		}
		delete(known, m.MsgID)
	}
	for msgid := range known {
		c.violate("", "a receipt of msgid %d, which was never given out", msgid)
	}
}

func (c *check) findSlowest() {
	var longest time.Duration
	for _, r := range c.Rows {
		due := r.Created.Add(c.Requests[r.Order].Due)
		if took := r.Finished.Time.Sub(due); took > longest {
			longest = took
			c.Slowest = fmt.Sprintf("%s after %.1f s and %d attempts, reason %q, errmsg %q",
				r.Status, took.Seconds(), r.Attempts, r.Reason, r.Errmsg)
		}
	}
}

func (c *check) story(order string) string {
	type event struct {
		at   time.Time
		text string
	}
	var events []event
	var b strings.Builder
	if want, ok := c.Requests[order]; ok {
		fmt.Fprintf(&b, "    asked: %+v\n", want)
	}
	for _, r := range c.Rows {
		if r.Order != order {
			continue
		}
		fmt.Fprintf(&b, "    row %d: %s reason=%q errcode=%d errmsg=%q attempts=%d cancel=%t "+
			"lease=%q msgid=%d appid=%s\n", r.ID, r.Status, r.Reason, r.Errcode, r.Errmsg, r.Attempts,
			r.Cancel, r.Lease, r.MsgID, r.AppID)
		events = append(events, event{r.Created, "created_at"}, event{r.Due, "due_at"},
			event{r.Expires.Time, "expires_at"}, event{r.Attempted.Time, "attempted_at"},
			event{r.InDoubt.Time, "uncertain_at"}, event{r.Finished.Time, "finished_at"})
	}
	for _, p := range c.postsOf[order] {
		events = append(events, event{p.At, "posted by " + p.From + " as " + p.ClientMsgID})
	}
	for _, m := range c.messagesOf[order] {
		events = append(events, event{m.Time, fmt.Sprintf("arrived as msgid %d", m.MsgID)})
	}
	events = slices.DeleteFunc(events, func(e event) bool { return e.at.IsZero() }) // NULL
	slices.SortFunc(events, func(a, b event) int {
		return cmp.Or(a.at.Compare(b.at), strings.Compare(a.text, b.text))
	})
	for _, e := range events {
		fmt.Fprintf(&b, "    %s %s\n", e.at.UTC().Format("15:04:05.000"), e.text)
	}
	return b.String()
}
