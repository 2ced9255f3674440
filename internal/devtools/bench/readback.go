package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// verdict counts what is not as it should be.
type verdict struct{ wrong, duplicates, missing int }

func (v *verdict) add(other verdict) {
	v.wrong += other.wrong
	v.duplicates += other.duplicates
	v.missing += other.missing
}

// sentRow is a row of the backlog, as its order number finds it.
type sentRow struct {
	status string
	openid string
	msgid  int64
}

// readBack compares what the simulator delivered and what the table's rows say with the n requests that were made.
func (b *bench) readBack(ctx context.Context, table string, n int) (verdict, error) {
	messages, err := b.simulator.Messages(ctx)
	if err != nil {
		return verdict{}, err
	}
	rows, err := b.sentRows(ctx, table)
	if err != nil {
		return verdict{}, err
	}
	return judge(b.users[:n], messages, rows), nil
}

// judge matches the messages to the requests by the order number in their text, which the daemon does
// not choose.
func judge(users []wechatsim.Identity, messages []wechatsim.Message, rows map[string]sentRow) (v verdict) {
	seen := make(map[string]bool, len(users))
	byOrder := make(map[string]int, len(users))
	for i := range users {
		byOrder[order("B", i)] = i
	}
	for _, m := range messages {
		number := orderOf(m)
		i, ok := byOrder[number]
		switch row := rows[number]; {
		case seen[number]:
			v.duplicates++
		case !ok || m.AppID != stage.AppID || m.TemplateID != stage.TemplateID() || m.UnionID != users[i].UnionID || !sameText(m, i):
			v.wrong++
		case row.status != "sent" || row.openid != m.OpenID || row.msgid != m.MsgID:
			v.wrong++
		}
		seen[number] = true
	}
	for number := range byOrder {
		if !seen[number] {
			v.missing++
		}
	}
	return v
}

func (b *bench) sentRows(ctx context.Context, table string) (map[string]sentRow, error) {
	rows, err := b.db.QueryContext(ctx, `
		SELECT JSON_UNQUOTE(JSON_EXTRACT(data, '$.character_string4')), status, COALESCE(sent_openid, ''), COALESCE(msgid, 0)
		  FROM `+table)
	if err != nil {
		return nil, fmt.Errorf("reading the rows back: %w", err)
	}
	defer func() { _ = rows.Close() }()
	sent := make(map[string]sentRow)
	for rows.Next() {
		var number string
		var row sentRow
		if err := rows.Scan(&number, &row.status, &row.openid, &row.msgid); err != nil {
			return nil, fmt.Errorf("reading the rows back: %w", err)
		}
		sent[number] = row
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading the rows back: %w", err)
	}
	return sent, nil
}

type fields map[string]struct {
	Value string `json:"value"`
}

func orderOf(m wechatsim.Message) string {
	var data fields
	if json.Unmarshal(m.Data, &data) != nil {
		return ""
	}
	return data["character_string4"].Value
}

func sameText(m wechatsim.Message, i int) bool {
	var got fields
	var want map[string]string
	if json.Unmarshal(m.Data, &got) != nil || json.Unmarshal([]byte(message("B", i)), &want) != nil || len(got) != len(want) {
		return false
	}
	for key, value := range want {
		if got[key].Value != value {
			return false
		}
	}
	return true
}
