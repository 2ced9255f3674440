package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// outcome is a row of v_send_status.
type outcome struct {
	ID         int64
	Status     string
	Reason     string
	SentOpenID string
	MsgID      int64
}

// check compares what the simulator delivered and what the rows say with what was asked for.
func (p *play) check(ctx context.Context) error {
	p.screen.Step("Check: every delivered message against the simulator's read-back")
	messages, err := p.simulator.Messages(ctx)
	if err != nil {
		return err
	}
	outcomes, err := readOutcomes(ctx, p.app)
	if err != nil {
		return err
	}
	p.delivered = messages
	if wrong := compare(p.wants, messages, outcomes); len(wrong) > 0 {
		for _, text := range wrong[:min(len(wrong), 10)] {
			p.screen.Bad("%s", text)
		}
		return fmt.Errorf("%s mismatches", count(len(wrong)))
	}
	p.screen.Good("%s messages: right person, right account, right text; none twice, none missing, none to anybody else",
		count(len(messages)))
	return nil
}

func readOutcomes(ctx context.Context, app *sql.DB) (map[int64]outcome, error) {
	rows, err := app.QueryContext(ctx, `
		SELECT id, status, COALESCE(reason, ''), COALESCE(sent_openid, ''), COALESCE(msgid, 0) FROM v_send_status`)
	if err != nil {
		return nil, fmt.Errorf("reading v_send_status: %w", err)
	}
	defer func() { _ = rows.Close() }()
	outcomes := make(map[int64]outcome)
	for rows.Next() {
		var o outcome
		if err := rows.Scan(&o.ID, &o.Status, &o.Reason, &o.SentOpenID, &o.MsgID); err != nil {
			return nil, fmt.Errorf("reading v_send_status: %w", err)
		}
		outcomes[o.ID] = o
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading v_send_status: %w", err)
	}
	return outcomes, nil
}

// compare returns what is wrong, a sentence each. Messages are matched to requests by the order number
// in their text and by nothing that the daemon chose.
func compare(wants []want, messages []wechatsim.Message, outcomes map[int64]outcome) []string {
	var wrong []string
	byOrder := make(map[string][]wechatsim.Message, len(messages))
	for _, m := range messages {
		order := values(m)["character_string4"]
		byOrder[order] = append(byOrder[order], m)
	}
	for _, w := range wants {
		wrong = append(wrong, compareOne(w, byOrder[w.Order], outcomes[w.ID])...)
		delete(byOrder, w.Order)
	}
	for _, order := range slices.Sorted(maps.Keys(byOrder)) {
		wrong = append(wrong, fmt.Sprintf("order %q: %d messages that nobody asked for", order, len(byOrder[order])))
	}
	if len(outcomes) != len(wants) {
		wrong = append(wrong, fmt.Sprintf("send_request has %d rows, %d were inserted", len(outcomes), len(wants)))
	}
	return wrong
}

func compareOne(w want, messages []wechatsim.Message, row outcome) (wrong []string) {
	fail := func(format string, args ...any) {
		wrong = append(wrong, fmt.Sprintf("request %d, order %s: ", w.ID, w.Order)+fmt.Sprintf(format, args...))
	}
	if !w.Person.Following {
		if len(messages) > 0 {
			fail("%d messages for somebody who does not follow", len(messages))
		}
		if row.Status != "waiting" || row.Reason == "" {
			fail("the recipient does not follow, and the row is %q with reason %q", row.Status, row.Reason)
		}
		return wrong
	}
	if len(messages) != 1 {
		fail("%d messages instead of one; the row is %q %s", len(messages), row.Status, row.Reason)
		return wrong
	}
	m := messages[0]
	if m.UnionID != w.Person.UnionID || m.OpenID != w.Person.OpenID {
		fail("it went to %s (unionid %s) instead of %s (unionid %s)", m.OpenID, m.UnionID, w.Person.OpenID, w.Person.UnionID)
	}
	if m.AppID != w.Person.AppID {
		fail("it went out through %s instead of %s", m.AppID, w.Person.AppID)
	}
	if m.TemplateID != stage.TemplateID() {
		fail("it has template %s", m.TemplateID)
	}
	if got := values(m); !maps.Equal(got, w.Data) {
		fail("its text is %v instead of %v", got, w.Data)
	}
	if row.Status != "sent" || row.MsgID != m.MsgID || row.SentOpenID != m.OpenID {
		fail("the row says %q, msgid %d, openid %s; the message has msgid %d, openid %s",
			row.Status, row.MsgID, row.SentOpenID, m.MsgID, m.OpenID)
	}
	return wrong
}

// values reads {"thing1":{"value":"x"}}; anything else gives nil, which equals no request's text.
func values(m wechatsim.Message) map[string]string {
	var data map[string]struct {
		Value *string `json:"value"`
	}
	if json.Unmarshal(m.Data, &data) != nil {
		return nil
	}
	plain := make(map[string]string, len(data))
	for key, field := range data {
		if field.Value == nil {
			return nil
		}
		plain[key] = *field.Value
	}
	return plain
}
