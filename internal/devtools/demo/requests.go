package main

import (
	"database/sql"
	"fmt"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/checker"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// request is one that the app makes.
type request struct {
	checker.Request
	miniUser wechatsim.Identity
	inserted time.Time // when the INSERT had returned
}

func (d *demo) insertMiniUsers() {
	d.Step("Mini program: the app puts its users into mini_user")
	users := d.simulator.MiniUsers()
	d.app.InsertMiniUsers(users)
	d.Say("%s rows (appid, openid, unionid)", harness.Count(len(users)))
	// The recipients are spread evenly over the users. A stride that is no multiple of 3, because
	// every third user does not follow.
	stride := len(users) / d.requests
	if stride%3 == 0 {
		stride--
	}
	for i := range d.requests {
		user := users[i*max(1, stride)]
		truth := d.simulator.Truth(user.Person)
		if truth.UnionID != user.UnionID || truth.UnionID == "" {
			d.Fatalf("the simulator contradicts itself about person %d", user.Person)
		}
		order := fmt.Sprintf("D-%06d", i)
		d.requested = append(d.requested, request{miniUser: user, Request: checker.Request{
			Order: order, Recipient: truth, Text: text(i, order),
			Committed: true, Waits: !truth.Following,
		}})
	}
}

// text is the i-th message: Chinese, and characters that JSON, HTML and SQL like to spoil.
func text(i int, order string) map[string]string {
	goods := []string{
		"热拿铁 & 可颂", "茶<新品>第二杯半价", `"大杯"冰美式`, "O'Reilly 图书 100%", `C:\new\table`,
		"咖啡豆 250g; DROP", "生日蛋糕(8寸)¥199", "Crème brûlée", "𠮷野家牛丼", "+/=?#&amp;",
	}
	return checker.Text(goods[i%len(goods)], fmt.Sprintf("%d.%02d元", 10+i%90, i%100), order)
}

// sendRequests inserts the rows one by one, as an app in any language would, and follows them.
func (d *demo) sendRequests() {
	d.Step("Requests: the app INSERTs %s rows into send_request, some for people who do not follow",
		harness.Count(d.requests))
	begin := time.Now()
	d.insertRequests()
	d.Say("INSERT INTO send_request (mini_openid, template, data) VALUES ('%s', '%s', '{…}')",
		d.requested[0].miniUser.OpenID, harness.Template)
	d.Say("%s plain INSERTs in %.1f s, on one connection", harness.Count(d.requests), time.Since(begin).Seconds())
	counts := d.follow(func(counts map[string]int64) bool { return counts["pending"] == 0 })
	d.sending = time.Since(begin)
	d.Good("%s, %.1f s after the first INSERT", describe(counts), d.sending.Seconds())
}

func (d *demo) insertRequests() {
	byMini := d.prepare(`INSERT INTO send_request (mini_openid, template, data) VALUES (?, ?, ?)`)
	byUnion := d.prepare(
		`INSERT INTO send_request (unionid, template, data, dedup_key) VALUES (?, ?, ?, ?)`)
	for i := range d.requested {
		r := &d.requested[i]
		// Both forms of the data with either kind of recipient.
		data := checker.Data(r.Text, i/2%2 == 0)
		var err error
		if i%4 == 3 {
			_, err = byUnion.ExecContext(d.Context(),
				r.Recipient.UnionID, harness.Template, data, r.Order)
		} else {
			_, err = byMini.ExecContext(d.Context(), r.miniUser.OpenID, harness.Template, data)
		}
		d.Checkf(err, "inserting request %d", i+1)
		r.inserted = time.Now()
	}
}

func (d *demo) prepare(query string) *sql.Stmt {
	statement, err := d.app.PrepareContext(d.Context(), query)
	d.Checkf(err, "preparing the INSERT")
	d.Cleanup(statement.Close)
	return statement
}

func (d *demo) check() {
	d.Step("Check: every delivered message against the simulator's read-back")
	d.delivered = d.simulator.Messages()
	reader := d.database.Reader()
	h := checker.History{
		AppID: harness.AppID, TemplateID: harness.TemplateID(), Undisturbed: true,
		Requests: map[string]checker.Request{}, Rows: checker.ReadRows(reader, "send_request"), Messages: d.delivered,
	}
	for _, r := range d.requested {
		h.Requests[r.Order] = r.Request
	}
	violations := checker.Check(h).Violations
	for _, v := range violations[:min(len(violations), 10)] {
		d.Bad("%s", v)
	}
	if len(violations) > 0 {
		d.Fatalf("%s mismatches", harness.Count(len(violations)))
	}
	// The app sees its rows by the view.
	differ := reader.Count(`
		SELECT COUNT(*)
		  FROM send_request r
		  LEFT JOIN v_send_status v ON v.id = r.id
		 WHERE NOT (v.status <=> r.status AND v.reason <=> r.reason AND
		            v.sent_openid <=> r.sent_openid AND v.msgid <=> r.msgid)`)
	if differ > 0 {
		d.Fatalf("v_send_status shows %d rows other than they are", differ)
	}
	d.Good("%s messages: right person, right account, right text; "+
		"none twice, none missing, none to anybody else", harness.Count(len(d.delivered)))
}
