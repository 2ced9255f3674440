package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// verdict is what the evidence comes to.
type verdict struct {
	rows, committed, unconfirmed int
	lost, twice                  int // requests
	status                       map[string]int
	posts, repeats               int
	slowest                      string // the request that took longest from its due_at to its end
	violations                   []violation
}

// violation is a broken promise, with what is known of the request.
type violation struct {
	order string // empty: no single request
	text  string
	story string
}

// judge holds the evidence against the promises.
func judge(e evidence) verdict {
	j := &judgement{
		evidence: e,
		verdict:  verdict{rows: len(e.rows), posts: len(e.posts), status: map[string]int{}},
		rowOf:    map[string]row{}, messagesOf: map[string][]wechatsim.Message{}, postsOf: map[string][]post{},
	}
	for _, m := range e.messages {
		order := texts(m.Data)[keyOrder]
		j.messagesOf[order] = append(j.messagesOf[order], m)
	}
	for _, p := range e.posts {
		j.postsOf[p.order] = append(j.postsOf[p.order], p)
	}
	j.checkRows()
	for _, order := range slices.Sorted(maps.Keys(e.records)) {
		j.checkRecord(e.records[order])
	}
	for _, order := range slices.Sorted(maps.Keys(j.messagesOf)) {
		j.checkMessages(order)
	}
	for _, order := range slices.Sorted(maps.Keys(j.postsOf)) {
		j.checkPosts(order)
	}
	j.checkReceipts()
	j.findSlowest()
	return j.verdict
}

// findSlowest tells why a round took as long as it did.
func (j *judgement) findSlowest() {
	var most time.Duration
	for _, r := range j.evidence.rows {
		if took := r.finishedAt.Time.Sub(r.createdAt.Add(j.records[r.order].due)); took > most {
			most = took
			j.slowest = fmt.Sprintf("%s after %.1f s and %d attempts, reason %q, errmsg %q", r.status, took.Seconds(), r.attempts, r.reason, r.errmsg)
		}
	}
}

type judgement struct {
	evidence
	verdict
	rowOf      map[string]row
	messagesOf map[string][]wechatsim.Message
	postsOf    map[string][]post
}

func (j *judgement) accuse(order, format string, args ...any) {
	j.violations = append(j.violations, violation{order, fmt.Sprintf(format, args...), j.story(order)})
}

// checkRows: each row is somebody's, is there once, and has ended as a whole.
func (j *judgement) checkRows() {
	for _, r := range j.evidence.rows {
		j.status[r.status]++
		if _, ours := j.records[r.order]; !ours {
			j.accuse(r.order, "row %d is nobody's", r.id)
		}
		if first, again := j.rowOf[r.order]; again {
			j.accuse(r.order, "rows %d and %d are one request", first.id, r.id)
			continue
		}
		j.rowOf[r.order] = r
		switch {
		case r.status == "pending" || r.status == "waiting":
			j.accuse(r.order, "row %d is still %s", r.id, r.status)
		case !r.finishedAt.Valid || r.lease != "":
			j.accuse(r.order, "row %d is %s, but finished_at or lease says otherwise", r.id, r.status)
		case (r.status == "sent") != (r.msgid != 0):
			j.accuse(r.order, "row %d is %s with msgid %d", r.id, r.status, r.msgid)
		}
	}
}

// checkRecord: what was committed is there, and what was withdrawn in time is cancelled.
func (j *judgement) checkRecord(r record) {
	got, there := j.rowOf[r.order]
	switch {
	case r.committed && !there:
		j.lost++
		j.accuse(r.order, "committed, and lost")
	case r.committed:
		j.committed++
	default:
		j.unconfirmed++
	}
	if r.withdrawn && !j.timeless && there && got.status != "cancelled" {
		j.accuse(r.order, "withdrawn before it was due, but row %d is %s", got.id, got.status)
	}
	if there && got.status == "sent" && len(j.messagesOf[r.order]) == 0 {
		j.accuse(r.order, "row %d is sent, but nothing arrived", got.id)
	}
}

// checkMessages: what arrived is a request's, arrived once, at the right person, with the right text, in its
// time, and its row knows.
func (j *judgement) checkMessages(order string) {
	messages := j.messagesOf[order]
	want, ours := j.records[order]
	got, there := j.rowOf[order]
	if !ours || !there {
		j.accuse(order, "a message that no row asks for")
		return
	}
	if len(messages) > 1 {
		j.twice++
		j.accuse(order, "arrived %d times, under the ids %s", len(messages), ids(messages))
	}
	if got.status != "sent" && got.status != "unknown" {
		j.accuse(order, "arrived, but row %d is %s", got.id, got.status)
	}
	for _, m := range messages {
		j.checkMessage(want, got, m)
	}
}

func (j *judgement) checkMessage(want record, got row, m wechatsim.Message) {
	if m.Person != want.person || m.AppID != stage.AppID || m.TemplateID != stage.TemplateID() {
		j.accuse(want.order, "went to person %d by template %s instead of person %d", m.Person, m.TemplateID, want.person)
	}
	if !maps.Equal(texts(m.Data), want.text()) {
		j.accuse(want.order, "arrived as %s", m.Data)
	}
	if got.status == "sent" && got.sentOpenID != m.OpenID {
		j.accuse(want.order, "row %d says that it was sent to %s, it went to %s", got.id, got.sentOpenID, m.OpenID)
	}
	if got.status == "sent" && got.msgid != m.MsgID && !j.newIDs {
		j.accuse(want.order, "row %d says msgid %d, it was %d", got.id, got.msgid, m.MsgID)
	}
	if j.timeless {
		return
	}
	if got.expiresAt.Valid && m.Time.After(got.expiresAt.Time.Add(j.overdue)) {
		j.accuse(want.order, "arrived %s after its expires_at", m.Time.Sub(got.expiresAt.Time))
	}
	// Both clocks are this machine's; the column holds milliseconds.
	if due := got.createdAt.Add(want.due - 5*time.Millisecond); m.Time.Before(due) {
		j.accuse(want.order, "arrived %s before it was due", due.Sub(m.Time))
	}
}

// checkPosts: one request has one client_msg_id, and is repeated only while WeChat would drop the second one.
func (j *judgement) checkPosts(order string) {
	posts := slices.Clone(j.postsOf[order])
	slices.SortFunc(posts, func(a, b post) int { return a.at.Compare(b.at) })
	first, last := posts[0], posts[len(posts)-1]
	j.repeats += len(posts) - 1
	for _, p := range posts[1:] {
		if p.clientID != first.clientID {
			j.accuse(order, "posted under the ids %s and %s", first.clientID, p.clientID)
			break
		}
	}
	// Repeating what WeChat has refused for certain is never unsafe. uncertain_at is the beginning of the first
	// attempt whose outcome is open.
	uncertain := j.rowOf[order].uncertainAt
	if !uncertain.Valid || j.timeless {
		return
	}
	if apart := last.at.Sub(uncertain.Time); apart > j.window+j.slack {
		j.accuse(order, "posted again %s after an attempt with an open outcome, the window is %s", apart.Round(time.Millisecond), j.window)
	}
}

// checkReceipts: what is stored was said, and what was answered is stored.
func (j *judgement) checkReceipts() {
	if j.receipts == nil && !j.allReceipts {
		return
	}
	known := map[int64]receipt{}
	for _, r := range j.receipts {
		known[r.msgid] = r
	}
	for _, m := range j.messages {
		order := texts(m.Data)[keyOrder]
		r, ok := known[m.MsgID]
		switch {
		case !ok && j.allReceipts:
			j.accuse(order, "the receipt of msgid %d is lost", m.MsgID)
		case ok && r.openid != m.OpenID:
			j.accuse(order, "the receipt of msgid %d names %s", m.MsgID, r.openid)
		}
		delete(known, m.MsgID)
	}
	for msgid := range known {
		j.accuse("", "a receipt of msgid %d, which was never given out", msgid)
	}
}

func ids(messages []wechatsim.Message) string {
	var list []string
	for _, m := range messages {
		list = append(list, m.ClientMsgID)
	}
	return strings.Join(list, ", ")
}

// story tells all that is known of a request, in order of time.
func (j *judgement) story(order string) string {
	if order == "" {
		return ""
	}
	type event struct {
		at   time.Time
		text string
	}
	var events []event
	var b strings.Builder
	if want, ok := j.records[order]; ok {
		fmt.Fprintf(&b, "    asked: %+v\n", want)
	}
	for _, r := range j.evidence.rows {
		if r.order != order {
			continue
		}
		fmt.Fprintf(&b, "    row %d: %s reason=%q errcode=%d errmsg=%q attempts=%d cancel=%t lease=%q msgid=%d\n",
			r.id, r.status, r.reason, r.errcode, r.errmsg, r.attempts, r.cancel, r.lease, r.msgid)
		events = append(events, event{r.createdAt, "created_at"}, event{r.dueAt, "due_at"})
		for name, at := range map[string]struct {
			valid bool
			time  time.Time
		}{
			"expires_at": {r.expiresAt.Valid, r.expiresAt.Time}, "attempted_at": {r.attemptedAt.Valid, r.attemptedAt.Time},
			"uncertain_at": {r.uncertainAt.Valid, r.uncertainAt.Time}, "finished_at": {r.finishedAt.Valid, r.finishedAt.Time},
		} {
			if at.valid {
				events = append(events, event{at.time, name})
			}
		}
	}
	for _, p := range j.postsOf[order] {
		events = append(events, event{p.at, "posted by " + p.from + " as " + p.clientID})
	}
	for _, m := range j.messagesOf[order] {
		events = append(events, event{m.Time, fmt.Sprintf("arrived as msgid %d", m.MsgID)})
	}
	slices.SortFunc(events, func(a, b event) int { return cmp.Or(a.at.Compare(b.at), strings.Compare(a.text, b.text)) })
	for _, e := range events {
		fmt.Fprintf(&b, "    %s %s\n", e.at.UTC().Format("15:04:05.000"), e.text)
	}
	return b.String()
}
