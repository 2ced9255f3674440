package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// want is a request and what must come of it.
type want struct {
	ID       int64  // of the row
	Order    string // the number in the message's text, by which the read-back is matched: no id of ours
	MiniUser wechatsim.Identity
	Person   wechatsim.Identity // the same one in the official account
	Data     map[string]string
	Inserted time.Time // when the INSERT had returned
}

// insertMiniUsers fills mini_user as the apps do after wx.login.
func (p *play) insertMiniUsers(ctx context.Context) error {
	p.screen.Step("Mini program: the app puts its users into mini_user")
	users, err := p.simulator.MiniUsers(ctx)
	if err != nil {
		return err
	}
	if err := stage.InsertMiniUsers(ctx, p.app, users); err != nil {
		return err
	}
	p.screen.Say("%s rows (appid, openid, unionid)", count(len(users)))
	p.wants, err = p.choose(ctx, users)
	return err
}

// choose picks the recipients evenly from the users, and writes their messages.
func (p *play) choose(ctx context.Context, users []wechatsim.Identity) ([]want, error) {
	// A stride that is no multiple of 3, because every third user does not follow.
	stride := len(users) / p.requests
	if stride%3 == 0 {
		stride--
	}
	wants := make([]want, 0, p.requests)
	for i := range p.requests {
		user := users[i*max(1, stride)]
		truth, err := p.simulator.Truth(ctx, user.Person)
		if err != nil {
			return nil, err
		}
		if truth.UnionID != user.UnionID || truth.UnionID == "" {
			return nil, fmt.Errorf("the simulator contradicts itself about person %d", user.Person)
		}
		order := fmt.Sprintf("D-%06d", i)
		wants = append(wants, want{Order: order, MiniUser: user, Person: truth, Data: text(i, order)})
	}
	return wants, nil
}

// text is the i-th message: Chinese, and characters that JSON, HTML and SQL like to spoil.
func text(i int, order string) map[string]string {
	goods := []string{
		"热拿铁 & 可颂", "茶<新品>第二杯半价", `"大杯"冰美式`, "O'Reilly 图书 100%", `C:\new\table`, "咖啡豆 250g; DROP",
		"生日蛋糕(8寸)¥199", "Crème brûlée", "𠮷野家牛丼", "+/=?#&amp;",
	}
	return map[string]string{
		"thing1":            goods[i%len(goods)],
		"time2":             "2026-01-02 15:04",
		"amount3":           fmt.Sprintf("%d.%02d元", 10+i%90, i%100),
		"character_string4": order,
	}
}

// encode writes the data in the two forms that the table takes, {"thing1":"x"} and
// {"thing1":{"value":"x"}}.
func encode(i int, values map[string]string) (string, error) {
	var data any = values
	if i%2 == 1 {
		long := make(map[string]any, len(values))
		for key, value := range values {
			long[key] = map[string]string{"value": value}
		}
		data = long
	}
	encoded, err := json.Marshal(data)
	if err != nil {
		return "", fmt.Errorf("encoding a message: %w", err)
	}
	return string(encoded), nil
}

// sendRequests inserts the rows one by one, as an app in any language would, and follows them.
func (p *play) sendRequests(ctx context.Context) error {
	p.screen.Step("Requests: the app INSERTs %s rows into send_request, some for people who do not follow", count(p.requests))
	begin := time.Now()
	if err := p.insertRequests(ctx); err != nil {
		return err
	}
	p.screen.Say("INSERT INTO send_request (mini_openid, template, data) VALUES ('%s', '%s', '{…}')",
		p.wants[0].MiniUser.OpenID, stage.Template)
	p.screen.Say("%s plain INSERTs in %.1f s, on one connection", count(p.requests), time.Since(begin).Seconds())
	counts, err := p.follow(ctx, func(counts map[string]int64) bool { return counts["pending"] == 0 })
	if err != nil {
		return err
	}
	p.sending = time.Since(begin)
	p.screen.Good("%s, %.1f s after the first INSERT", describe(counts), p.sending.Seconds())
	return nil
}

func (p *play) insertRequests(ctx context.Context) (err error) {
	byMini, err := p.app.PrepareContext(ctx, `INSERT INTO send_request (mini_openid, template, data) VALUES (?, ?, ?)`)
	if err != nil {
		return fmt.Errorf("preparing the INSERT: %w", err)
	}
	defer func() { err = errors.Join(err, byMini.Close()) }()
	byUnion, err := p.app.PrepareContext(ctx, `INSERT INTO send_request (unionid, template, data, dedup_key) VALUES (?, ?, ?, ?)`)
	if err != nil {
		return fmt.Errorf("preparing the INSERT: %w", err)
	}
	defer func() { err = errors.Join(err, byUnion.Close()) }()
	for i := range p.wants {
		w := &p.wants[i]
		data, err := encode(i/2, w.Data) // i/2: both forms with either kind of recipient
		if err != nil {
			return err
		}
		var done sql.Result
		if i%4 == 3 {
			done, err = byUnion.ExecContext(ctx, w.Person.UnionID, stage.Template, data, w.Order)
		} else {
			done, err = byMini.ExecContext(ctx, w.MiniUser.OpenID, stage.Template, data)
		}
		if err != nil {
			return fmt.Errorf("inserting request %d: %w", i+1, err)
		}
		w.Inserted = time.Now()
		if w.ID, err = done.LastInsertId(); err != nil {
			return fmt.Errorf("inserting request %d: %w", i+1, err)
		}
	}
	return nil
}
