package database_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

const subscribePage = "../../docs/subscribe.md"

// TestSubscribePage runs the statements of docs/subscribe.md, each as a user with the role that its
// fence names: none is the producer's.
func TestSubscribePage(t *testing.T) {
	contract, _ := pageParts(t, subscribePage)
	owner := dbtest.New(t)
	g := newGrants(t, owner, grantMessageTexts)
	found := 0
	for _, by := range []struct{ role, fence string }{
		{"producer", "sql"}, {"login", "sql login"}, {"reader", "sql reader"},
	} {
		db := g.connect(t, by.role)
		if by.role == "reader" {
			seedLedger(t, owner)
		}
		for _, s := range pageStatements(t, contract, by.fence) {
			found++
			if by.role == "reader" {
				if len(answer(t, db, s.sql)) == 0 {
					t.Errorf("this query answers nothing:\n%s", s.sql)
				}
				continue
			}
			_, err := db.ExecContext(t.Context(), s.sql)
			if got := errNumber(t, err); got != s.want {
				t.Errorf("%s\n\t= %v, the page says %d", s.sql, err, s.want)
			}
		}
	}
	if all := strings.Count(contract, "\n```sql"); all < 10 || found < all {
		t.Errorf("%d statements ran, of %d blocks of SQL", found, all)
	}
	checkRows(t, owner, `
		SELECT CONCAT_WS(' ', dedup_key, appid, mini_appid, openid, mini_openid, unionid, route, page)
		  FROM send_request WHERE dedup_key IS NOT NULL ORDER BY id`,
		"order-1024-ready wxfedcba9876543210 ox7UIjmbNRiApJAUl_WjAZV5hC5I pages/order?id=1024",
		"order-1025-ready oY8XavuwipZjxfn2FLtYkBB3AWaI",
		"order-1026-ready wxfedcba9876543210 ox7UIjmbNRiApJAUl_WjAZV5hC5I mini,official")
	checkRows(t, owner, `
		SELECT CONCAT_WS(' ', appid, openid, result, report_key,
		                 ROUND(TIMESTAMPDIFF(SECOND, accepted_at, created_at) / 60))
		  FROM subscription_report ORDER BY id`,
		"wxfedcba9876543210 ox7UIjmbNRiApJAUl_WjAZV5hC5I accept tap-1024",
		"wxfedcba9876543210 ox7UIjmbNRiApJAUl_WjAZV5hC5I acceptWithAlert tap-1025 3")
}

// seedLedger writes what a daemon would have written, as the page's queries ask for it.
func seedLedger(t *testing.T, owner *sqlx.DB) {
	t.Helper()
	for _, stmt := range []string{
		`INSERT INTO subscription_grant (appid, openid, template_id, remaining)
		 SELECT appid, openid, template_id, 1 FROM subscription_report WHERE report_key = 'tap-1024'`,
		`INSERT INTO grant_event (appid, openid, template_id, event_key, kind, source)
		 SELECT appid, openid, template_id, report_key, 'accept', 'report' FROM subscription_report`,
		`INSERT INTO send_request (appid, openid, template, data, status, reason)
		 VALUES ('wxfedcba9876543210', 'o', 't', '{}', 'waiting', 'no_grant')`,
	} {
		if _, err := owner.ExecContext(t.Context(), stmt); err != nil {
			t.Fatalf("%s: %v", stmt, err)
		}
	}
}

// checkRows compares the lines that a query answers.
func checkRows(t *testing.T, owner *sqlx.DB, query string, want ...string) {
	t.Helper()
	var got []string
	if err := owner.SelectContext(t.Context(), &got, query); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

// TestSubscribeExamples runs the programs of docs/subscribe.md, each part twice and as its own user.
// A language without its interpreter or driver here is skipped.
func TestSubscribeExamples(t *testing.T) {
	_, text := pageParts(t, subscribePage)
	owner := dbtest.New(t)
	g := newGrants(t, owner)
	users := map[string][]string{}
	for verb, role := range map[string]string{"report": "login", "send": "producer"} {
		g.connect(t, role)
		users[verb] = producerEnvironment(t, owner, g.prefix+role+"_u")
	}
	if n := strings.Count("\n"+text, "\n### "); n != len(examplePrograms()) {
		t.Errorf("docs/subscribe.md has %d examples, %d are tested", n, len(examplePrograms()))
	}
	for i, e := range examplePrograms() {
		t.Run(e.title, func(t *testing.T) {
			files := e.programs(t, text)
			command, why := e.command(t)
			if command == nil {
				t.Skip(why)
			}
			order := strconv.Itoa(1001 + i)
			for _, part := range []struct{ verb, want string }{
				{"report", "tap-" + order + " reported\n"},
				{"send", "order-" + order + "-ready queued\n"},
			} {
				file := files[0] // SQL has a file for each part
				if part.verb == "send" {
					file = files[len(files)-1]
				}
				for range 2 {
					out := runExample(t, users[part.verb], append(slices.Clone(command), file),
						part.verb, order)
					if diff := cmp.Diff(part.want, out); diff != "" {
						t.Errorf("it prints (-want +got):\n%s", diff)
					}
				}
			}
			checkSubscribeRows(t, owner, order)
		})
	}
}

// checkSubscribeRows compares the rows of an example with what each of them writes.
func checkSubscribeRows(t *testing.T, owner *sqlx.DB, order string) {
	t.Helper()
	checkRows(t, owner, `
		SELECT CONCAT_WS(' ', appid, openid, template_id, result)
		  FROM subscription_report WHERE report_key = 'tap-`+order+`'`,
		"wxfedcba9876543210 ox7UIjmbNRiApJAUl_WjAZV5hC5I "+
			"Z9y8X7w6V5u4T3s2R1q0P9o8N7m6L5k4J3i2H1g0F_- accept")
	checkRows(t, owner, `
		SELECT CONCAT_WS(' ', appid, openid, template, page, JSON_UNQUOTE(JSON_EXTRACT(data, '$.thing1')),
		                 JSON_UNQUOTE(JSON_EXTRACT(data, '$.character_string2')),
		                 ROUND(TIMESTAMPDIFF(MICROSECOND, created_at, expires_at) / 1000000))
		  FROM send_request WHERE dedup_key = 'order-`+order+`-ready'`,
		"wxfedcba9876543210 ox7UIjmbNRiApJAUl_WjAZV5hC5I order_ready pages/order?id="+order+
			" 热拿铁 ☕ A-"+order+" 7200")
}

// miniProgram stands for WeChat around the page's code: it answers one tap, and prints what the
// app's server would get.
const miniProgram = `
let page;
const Page = (p) => { page = p; };
const ids = [];
const wx = {
  requestSubscribeMessage(o) {
    ids.push(...o.tmplIds);
    o.success({ errMsg: "requestSubscribeMessage:ok", [o.tmplIds[0]]: RESULT });
  },
  request: (o) => console.log(JSON.stringify({ ids, ...o.data })),
};
`

// TestSubscribeMiniProgram runs the page's code of the mini program: of WeChat's words those that
// mean yes are reported, under one key.
func TestSubscribeMiniProgram(t *testing.T) {
	contract, _ := pageParts(t, subscribePage)
	m := regexp.MustCompile("(?s)```js\n(.*?)```").FindStringSubmatch(contract)
	if m == nil {
		t.Fatal("docs/subscribe.md has no code for the mini program")
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("needs Node")
	}
	for word, accepted := range map[string]bool{"accept": true, "acceptWithAlert": true,
		"reject": false, "ban": false, "filter": false} {
		file := filepath.Join(t.TempDir(), "page.cjs")
		code := strings.Replace(miniProgram, "RESULT", strconv.Quote(word), 1) + m[1] +
			"page.remindMe();\n"
		if err := os.WriteFile(file, []byte(code), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), node, file).CombinedOutput()
		if err != nil || len(out) > 0 != accepted {
			t.Errorf("after %s it reports %q (%v)", word, out, err)
		}
		if !accepted {
			continue
		}
		var got struct {
			IDs     []string
			Key     string
			Results []struct{ TemplateID, Result string }
		}
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatal(err)
		}
		if len(got.IDs) > 3 || got.Key == "" || len(got.Results) != 1 ||
			got.Results[0].Result != word || got.Results[0].TemplateID != got.IDs[0] {
			t.Errorf("after %s it reports %s", word, out)
		}
	}
}
