package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// badFiles lists the files of testdata/bad with the error that each must give, word for word: these
// lines are what an operator has at three in the morning. DIR is the file's folder.
var badFiles = []struct {
	file string
	want string
}{
	{"alias", `
f.yaml:1:12: could not find alias "[redacted]"
>    1 | database: [redacted]
       |            ^`},
	{"api_networks", `
f.yaml:6:5: applications[0].networks: missing; with http.api_plain each application must say where it calls from, such as [10.0.0.0/8]
f.yaml:12:5: applications[1].networks: 0.0.0.0/0 is everywhere; with http.api_plain it must be less, such as 10.0.0.0/8`},
	{"api_open", `
f.yaml:2:8: http.api_listen: ":8082" is open to other machines, and secrets would travel in the clear; set api_tls, or listen on 127.0.0.1, or on a private address with api_plain: true and with networks for each application`},
	{"api_public", `
f.yaml:2:8: http.api_listen: is the same address as another of http's; choose another port
f.yaml:2:8: http.api_listen: "0.0.0.0:8080" is no private address; api_plain needs one, such as 10.0.0.5:8082: name this machine's, or set api_tls`},
	{"api_tls", `
f.yaml:2:29: http.api_plain: means a listener without TLS; remove it, or api_tls
f.yaml:2:46: http.api_tls: the two files hold no certificate with its key: tls: failed to find any PEM data in certificate input`},
	{"appid_shape", `
f.yaml:3:6: official_accounts[0].appid: "wx000000000000000" is not an appid: wx and 16 hexadecimal digits in lower case
f.yaml:4:6: official_accounts[1].appid: "[redacted]" is not an appid: wx and 16 hexadecimal digits in lower case
f.yaml:6:6: mini_programs[0].appid: "WX0123456789ABCDEF" is not an appid: wx and 16 hexadecimal digits in lower case`},
	{"applications", `
f.yaml:2:8: http.api_proxy_from: belongs to api_listen; set that, or remove this line
f.yaml:2:38: http.api_tls.key_file: missing; name the key of cert_file
f.yaml:2:38: http.api_tls: belongs to api_listen; set that, or remove this line
f.yaml:10:4: applications[0].secret_hash_file: missing; name a file there, then "unionbridge application secret NAME --write" makes it, and a secret
f.yaml:10:4: applications[0].name: missing; it is for logs, and stands in the application's requests
f.yaml:10:4: applications[0].accounts: missing; name the accounts and the calls that it may use, such as {wx…: [template_send]}
f.yaml:11:5: applications[1].name: "Shop Ä" is not a name: 1 to 64 of a-z, 0-9, underscore, dot and hyphen, first a letter or digit
f.yaml:12:5: applications[1].secret_hash_file: DIR/nowhere.hash does not exist; "unionbridge application secret NAME --write" makes it, and a secret
f.yaml:13:16: applications[1].accounts.wx0000000000000009: no account has this appid; add it under official_accounts or mini_programs, or remove this line
f.yaml:13:45: applications[1].accounts.wx0000000000000001: missing; name at least one call, such as template_send
f.yaml:14:23: applications[1].templates[1]: "unpaid" is neither an alias under templates nor an id of 43 characters; add it there, or remove it
f.yaml:14:31: applications[1].templates[2]: "paid" stands there twice
f.yaml:15:5: applications[1].priority: 3 is not between 0 and 2
f.yaml:16:13: applications[1].limit.minute: -1 is negative; 0 sets no limit
f.yaml:16:25: applications[1].limit.day: -1 is negative; 0 sets no limit
f.yaml:17:16: applications[1].networks[0]: "10.0.0.1/8" has bits behind its mask; write 10.0.0.0/8, or 10.0.0.1 for that one address
f.yaml:17:28: applications[1].networks[1]: "all" is neither a network such as 10.0.0.0/8 nor an address
f.yaml:17:33: applications[1].networks[2]: "::ffff:10.0.0.0/104" is an IPv4 network in IPv6's form; write it as IPv4
f.yaml:18:5: applications[1].duplicate_window: 1h1m0s is too long; at most 1h0m0s
f.yaml:19:15: applications[1].forward[0]: "/wxa/business/getuserphonenumber" is not forwarded; the paths that may be are /cgi-bin/qrcode/create, /cgi-bin/shorten/fetch, /cgi-bin/shorten/gen, /cgi-bin/wxaapp/createwxaqrcode, /wxa/generate_urllink, /wxa/generatescheme, /wxa/genwxashortlink, /wxa/getwxacode, /wxa/getwxacodeunlimit, /wxa/img_sec_check, /wxa/media_check_async, /wxa/msg_sec_check, /wxa/query_urllink, /wxa/queryscheme
f.yaml:21:5: applications[2].secret_hashes: holds a secret itself, and not its hash; make a new secret, for this one may have been seen: unionbridge application secret shop
f.yaml:22:37: applications[2].accounts.wx0000000000000001[0]: login is a mini program's; name one, or remove this element
f.yaml:22:59: applications[2].accounts.wx0000000000000001[2]: template_send stands there twice
f.yaml:22:74: applications[2].accounts.wx0000000000000001[3]: "send" is none of template_send, subscribe_send, uniform_send, login, identities, grants
f.yaml:23:5: applications[2].duplicate_window: -1s is negative; "0s" takes each message for a new one
f.yaml:24:5: applications[3].name: shop is the name at applications[2].name already; choose another one
f.yaml:25:5: applications[3].secret_hash_file: given twice; keep one of secret_hash_file and secret_hashes
f.yaml:25:5: applications[3].secret_hash_file: holds what is no hash: 64 of 0-9 and a-f, as "unionbridge application secret" prints them
f.yaml:27:37: applications[3].accounts.wx0000000000000002[0]: login needs mini_programs[0].secret_file; add it, or remove this element
f.yaml:28:5: applications[4].name: wx0000000000000001 reads as an appid; choose another name
f.yaml:29:5: applications[4].secret_hash_file: holds 3 hashes; at most two secrets are valid, the last one and the one before it: remove the oldest
f.yaml:29:5: applications[4].secret_hash_file: holds what is no hash: 64 of 0-9 and a-f, as "unionbridge application secret" prints them
f.yaml:32:5: applications[5].secret_hash_file: this takes the name of a file, not the value itself
f.yaml:35:5: applications[6].secret_hash_file: the file is empty; "unionbridge application secret third --write" makes it, and a secret`},
	{"base_url_http", `
f.yaml:2:10: wechat.base_url: must be https: tokens and secrets travel in it; plain http is for this machine only (127.0.0.1, ::1, localhost)`},
	{"base_url_shape", `
f.yaml:2:10: wechat.base_url: not a URL; the form is https://host`},
	{"base_url_user", `
f.yaml:2:10: wechat.base_url: must end after the host or a path: no user, query or fragment`},
	{"comment", `
f.yaml: the file is empty; "unionbridge config example" prints one to start from`},
	{"cron", `
f.yaml:3:51: official_accounts[0].sync.sweep: "61 3 * * *" is not a schedule: end of range (61) above maximum (59): 61; write it like "17 3 * * *" (minute hour day month weekday) or "@every 5m"
f.yaml:3:70: official_accounts[0].sync.refresh: "@every 5 minutes" is not a schedule: failed to parse duration @every 5 minutes: time: unknown unit " minutes" in duration "5 minutes"; write it like "17 3 * * *" (minute hour day month weekday) or "@every 5m"
f.yaml:4:51: official_accounts[1].sync.sweep: "0 0 31 2 *" is not a schedule: no such day ever comes; write it like "17 3 * * *" (minute hour day month weekday) or "@every 5m"
f.yaml:4:70: official_accounts[1].sync.refresh: "@every 10ms" is not a schedule: shorter than a second; write it like "17 3 * * *" (minute hour day month weekday) or "@every 5m"
f.yaml:5:51: official_accounts[2].sync.sweep: "TZ=Asia/Shanghai" is not a schedule: nothing follows the time zone; write it like "17 3 * * *" (minute hour day month weekday) or "@every 5m"
f.yaml:5:76: official_accounts[2].sync.refresh: "" is not a schedule: empty spec string; write it like "17 3 * * *" (minute hour day month weekday) or "@every 5m"`},
	{"dsn", `
f.yaml:1:12: database.dsn: not understood; the form is user:password@tcp(host:3306)/database, options follow as ?name=value&…`},
	{"dsn_no_database", `
f.yaml:1:12: database.dsn: names no database; the form is user:password@tcp(host:3306)/database
f.yaml:1:38: database.max_connections: 1 is not between 3 and 1000`},
	{"dsn_option", `
f.yaml:1:12: database.dsn: not understood; the form is user:password@tcp(host:3306)/database, options follow as ?name=value&…`},
	{"duplicate_appid", `
f.yaml:4:6: official_accounts[1].appid: wx0000000000000001 stands at official_accounts[0].appid already; an appid belongs to one account
f.yaml:6:6: mini_programs[0].appid: wx0000000000000001 stands at official_accounts[0].appid already; an appid belongs to one account`},
	{"duplicate_key", `
f.yaml:3:1: mapping key "log" already defined at [2:1]
     1 | database: {dsn: [redacted]
     2 | log: {level: info}
>    3 | log: {level: debug}
       | ^`},
	{"empty", `
f.yaml: the file is empty; "unionbridge config example" prints one to start from`},
	{"listen", `
f.yaml:2:8: http.listen: "8080" is not host:port; such as "127.0.0.1:8080" or ":8080"
f.yaml:2:22: http.callback_listen: "http://0.0.0.0:99999" is not host:port; such as "127.0.0.1:8080" or ":8080"`},
	{"listen_twice", `
f.yaml:2:25: http.callback_listen: is the same address as http.listen; the callback's port is open to the internet, health and metrics should not be`},
	{"lost_key", `
f.yaml:5:16: official_accounts[0].callback.token: missing; give token_file, token_env or token
f.yaml:5:24: official_accounts[0].callback.[redacted]: unknown key; known here: aes_key, aes_key_env, aes_key_file, previous_aes_key, previous_aes_key_env, previous_aes_key_file, token, token_env, token_file`},
	{"mini", `
f.yaml:6:26: mini_programs[0].callback.aes_key: is not an EncodingAESKey: 43 letters and digits, as the platform's console shows it (this has 8 characters)
f.yaml:7:5: mini_programs[0].grants: "pushes" is none of events, reports, both, none
f.yaml:8:33: mini_programs[1].grants: both needs WeChat's pushes; set callback, or use reports or none
f.yaml:9:33: mini_programs[2].callback.token: missing; give token_file, token_env or token`},
	{"mini_template", `
f.yaml:3:5: mini_programs[0].secret: missing; give secret_file, secret_env or secret
f.yaml:3:41: mini_programs[0].token.mode: "[redacted]" is not known; use stable (or leave it out), classic, url or command
f.yaml:3:62: mini_programs[0].send.rate: 0 is not a number above zero
f.yaml:3:71: mini_programs[0].send.wait_for_grant: -1h0m0s is negative; "0s" does not wait
f.yaml:6:16: templates.a.official.id: there is no official account; add one, or give the template as mini
f.yaml:7:5: templates.a.uncertain: "maybe" is neither unknown nor repeat
f.yaml:12:9: templates.b.mini.ids.wx0000000000000001: differs from id, which is the first mini program's too; keep one of them
f.yaml:13:9: templates.b.mini.ids.wx0000000000000002: no mini program has this appid; add it or remove this line
f.yaml:14:7: templates.b.mini.page: must be a path in the mini program such as pages/order, without a host
f.yaml:15:25: templates.b.mini.keys.b: thing1 is a already; each key has one name
f.yaml:16:7: templates.b.mini.state: "testing" is none of formal, trial, developer
f.yaml:17:7: templates.b.mini.lang: "zh" is none of zh_CN, en_US, zh_HK, zh_TW
f.yaml:18:19: templates.b.route[1]: the alias has no official; give it there, or remove this element
f.yaml:18:29: templates.b.route[2]: mini stands there twice
f.yaml:18:35: templates.b.route[3]: "sms" is neither official nor mini`},
	{"missing_all", `
f.yaml: database.dsn: missing; give dsn_file, dsn_env or dsn
f.yaml: official_accounts: missing; at least one account is needed, here or under mini_programs, with appid and secret_file`},
	{"missing_required", `
f.yaml:1:1: database.dsn: missing; give dsn_file, dsn_env or dsn
f.yaml:4:5: official_accounts[0].secret: missing; give secret_file, secret_env or secret
f.yaml:4:5: official_accounts[0].appid: missing; the platform's console shows it: wx and 16 hexadecimal digits
f.yaml:7:5: mini_programs[0].appid: missing; the platform's console shows it: wx and 16 hexadecimal digits`},
	{"null_account", `
f.yaml:3:3: official_accounts[0].secret: missing; give secret_file, secret_env or secret
f.yaml:3:3: official_accounts[0].appid: missing; the platform's console shows it: wx and 16 hexadecimal digits`},
	{"overflow", `
f.yaml:1:53: this number is too large or must not be negative
>    1 | database: {dsn: [redacted]
       |                                                     ^
     2 | official_accounts:
     3 | - {appid: wx0000000000000001, secret: [redacted]`},
	{"secret_sources", `
f.yaml:1:12: database.dsn: given more than once; keep exactly one of dsn, dsn_file and dsn_env
f.yaml:3:33: official_accounts[0].secret_file: DIR/does-not-exist.secret does not exist; create it, readable for the daemon's user alone
f.yaml:4:33: official_accounts[1].secret_file: DIR/empty.secret is empty
f.yaml:5:33: official_accounts[2].secret_file: DIR/two-lines.secret holds more than one line; it must hold the secret and nothing else
f.yaml:6:33: official_accounts[3].secret_env: environment variable TEST_UNSET is not set or empty
f.yaml:7:33: official_accounts[4].secret_env: this takes the name of an environment variable, not the value itself
f.yaml:8:33: official_accounts[5].secret_file: this takes the name of a file, not the value itself
f.yaml:9:33: official_accounts[6].secret: empty
f.yaml:10:33: official_accounts[7].secret_file: read DIR/folder: is a directory`},
	{"syntax", `
f.yaml:7:20: value is not allowed in this context. map key-value is pre-defined
     5 |     secret: [redacted]
     6 |     name: 服务号
>    7 |     sync: {sweep: [redacted]
       |                    ^`},
	{"tab", `
f.yaml:2:1: found character '	' that cannot start any token
     1 | database:
>    2 | 	dsn: [redacted]
       | ^`},
	{"token", `
f.yaml:3:44: official_accounts[0].token.url: missing; give url_file, url_env or url
f.yaml:4:52: official_accounts[1].token.url: must be https: tokens and secrets travel in it; plain http is for this machine only (127.0.0.1, ::1, localhost)
f.yaml:5:52: official_accounts[2].token.url: must not hold a user; put it into header: {Authorization: {value_file: …}}
f.yaml:6:52: official_accounts[3].token.url: holds a #, and what follows it is never sent; write %23 if it belongs to a value
f.yaml:10:7: official_accounts[4].token.url: given more than once; keep exactly one of url, url_file and url_env
f.yaml:12:7: official_accounts[4].token.header: a name is 1 to 40 letters, digits and hyphens, such as Authorization
f.yaml:13:9: official_accounts[4].token.header.X-Empty.value: missing; give value_file, value_env or value
f.yaml:14:19: official_accounts[4].token.header.X-Twice.value: given more than once; keep exactly one of value, value_file and value_env
f.yaml:15:20: official_accounts[4].token.header.X-Absent.value_file: DIR/does-not-exist.secret does not exist; create it, readable for the daemon's user alone
f.yaml:16:9: official_accounts[4].token.header.X-Chinese: is not what a header line may hold: printable ASCII
f.yaml:17:9: official_accounts[4].token.header.Content-Length: is set by the daemon itself; remove this line
f.yaml:19:9: official_accounts[4].token.header.X-Key.value: missing; give value_file, value_env or value
f.yaml:19:17: official_accounts[4].token.header.X-Key.valeu: unknown key; known here: value, value_env, value_file
f.yaml:20:67: official_accounts[5].token.url_file: belongs to mode: url; set that, or remove this line
f.yaml:20:80: official_accounts[5].token.header: belongs to mode: url; set that, or remove this line
f.yaml:20:108: official_accounts[5].token.command: belongs to mode: command; set that, or remove this line
f.yaml:21:33: official_accounts[6].token.command: missing; give the program and its arguments as a list, such as ["/usr/local/bin/wx-token", "--quiet"]
f.yaml:22:56: official_accounts[7].token.command: must begin with an absolute path: no shell and no PATH looks the program up
f.yaml:23:56: official_accounts[8].token.command: the program does not exist; install it, or correct the path
f.yaml:23:84: official_accounts[8].token.url: belongs to mode: url; set that, or remove this line
f.yaml:24:56: official_accounts[9].token.command: is not a program; chmod +x it, or name another file
f.yaml:25:56: official_accounts[10].token.command: is not a program; chmod +x it, or name another file
f.yaml:26:5: official_accounts[11].secret: missing; give secret_file, secret_env or secret`},
	{"templates", `
f.yaml:4:3: templates.Order Paid: an alias is 1 to 64 of a-z, 0-9, underscore, dot and hyphen
f.yaml:5:3: templates.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: an alias of 43 characters reads as WeChat's own template id; choose a shorter name
f.yaml:6:3: templates.none.official: has no template id; give id, or ids with one for each account's appid
f.yaml:7:22: templates.short.official.id: "TM00015" is not a template id: 43 letters, digits, hyphens and underscores, as the platform's console shows it
f.yaml:7:36: templates.short.mini.id: "" is not a template id: 43 letters, digits, hyphens and underscores, as the platform's console shows it
f.yaml:12:9: templates.a.b.official.ids.wx0000000000000001: differs from id, which is the default account's too; keep one of them
f.yaml:13:9: templates.a.b.official.ids.wx0000000000000002: no official account has this appid; add it or remove this line`},
	{"top_list", `
f.yaml:1:1: this must be a mapping (key: value)
>    1 | - [redacted]
       | ^`},
	{"top_scalar", `
f.yaml:1:1: this must be a mapping (key: value)
>    1 | [redacted]
       | ^`},
	{"two_defaults", `
f.yaml:4:44: official_accounts[1].default: official_accounts[0] is marked already; one account can be the default`},
	{"two_documents", `
f.yaml: the file holds 2 documents separated by ---; keep one`},
	{"type", `
f.yaml:3:20: this must be a whole number
     1 | database:
     2 |   dsn: [redacted]
>    3 |   max_connections: many
       |                    ^
     4 | official_accounts:
     5 |   - {appid: wx0000000000000001, secret: [redacted]`},
	{"type_duration", `
f.yaml:2:19: this must be a duration such as 30s
     1 | database: {dsn: [redacted]
>    2 | wechat: {timeout: [[redacted]
       |                   ^
     3 | official_accounts:
     4 | - {appid: wx0000000000000001, secret: [redacted]`},
	{"type_float", `
f.yaml:3:52: official_accounts[0].sync.concurrency: this must be a whole number`},
	{"type_list", `
f.yaml:3:8: this must be a list (lines that begin with a dash)
     1 | database: {dsn: [redacted]
     2 | official_accounts:
>    3 |   appid: wx0000000000000001
       |        ^
     4 |   secret: [redacted]`},
	{"type_mapping", `
f.yaml:3:51: this must be a mapping (key: value)
     1 | database: {dsn: [redacted]
     2 | official_accounts:
>    3 | - {appid: wx0000000000000001, secret: [redacted]
       |                                                   ^`},
	{"type_secret", `
f.yaml:5:7: this must be text
     3 |   - appid: wx0000000000000001
     4 |     secret:
>    5 |       - [redacted]
       |       ^
     6 |       - [redacted]
     7 |     name: 服务号`},
	{"unknown_keys", `
f.yaml:1:33: database.pool: unknown key; known here: dsn, dsn_env, dsn_file, max_connections
f.yaml:6:7: official_accounts[0].sync.swep: unknown key; known here: concurrency, keep_runs, max_gone, quota_reserve, refresh, sweep
f.yaml:8:5: official_accounts[0].[redacted]: unknown key; known here: appid, callback, default, name, secret, secret_env, secret_file, send, sync, token
f.yaml:9:1: proxy: unknown key; known here: applications, database, http, log, mini_programs, official_accounts, retention, shutdown_timeout, state_dir, templates, wechat`},
	{"values", `
f.yaml:2:10: wechat.timeout: "30" has no unit; write 30s for seconds, 30m for minutes
f.yaml:2:23: wechat.send_timeout: 21s must be above zero and at most 20s, so that a claimed message is settled before it falls due again
f.yaml:2:42: wechat.quota_reset_hour: 24 is not between 0 and 23
f.yaml:3:7: log.level: "loud" is none of debug, info, warn, error
f.yaml:3:20: log.format: "xml" is neither text nor json
f.yaml:4:1: shutdown_timeout: "soon" is not a duration; write a number and ms, s, m or h, such as "30s" or "72h"
f.yaml:5:13: retention.finished: 59m0s is too short: producers look their outcomes up; at least 1h0m0s, or "0s" to keep them for ever
f.yaml:10:26: official_accounts[0].callback.aes_key: is not an EncodingAESKey: 43 letters and digits, as the platform's console shows it (this has 8 characters)
f.yaml:11:12: official_accounts[0].sync.max_gone: "5" has no percent sign; write it as "5%"
f.yaml:11:25: official_accounts[0].sync.concurrency: 0 is not between 1 and 1000
f.yaml:12:12: official_accounts[0].send.rate: 0 is not a number above zero
f.yaml:12:21: official_accounts[0].send.concurrency: 1001 is not between 1 and 1000
f.yaml:12:40: official_accounts[0].send.max_attempts: 0 is not between 1 and 100
f.yaml:12:57: official_accounts[0].send.wait_for_follower: -1h0m0s is negative; "0s" does not wait
f.yaml:12:81: official_accounts[0].send.blocked_for: 8761h0m0s is too long; at most 8760h0m0s
f.yaml:15:13: official_accounts[1].token.mode: "stabel" is not known; use stable (or leave it out), classic, url or command
f.yaml:16:12: official_accounts[1].sync.max_gone: "101%" is not between 0% and 100%
f.yaml:17:12: official_accounts[1].send.daily_budget: -1 is negative; 0 sets no limit of our own
f.yaml:17:30: official_accounts[1].send.rate: +Inf is not a number above zero
f.yaml:17:42: official_accounts[1].send.resend_window: 9m1s is not between 0s (never repeat) and 9m0s: WeChat drops a second message within 10 minutes only, and a minute is left for clocks and the way
f.yaml:17:63: official_accounts[1].send.wait_for_follower: 876000h0m0s is too long; at most 8760h0m0s
f.yaml:17:91: official_accounts[1].send.urgent_reserve: "101%" is not between 0% and 100%
f.yaml:17:113: official_accounts[1].send.blocked_for: -1s is negative; "0s" forgets at once`},
}

func TestDecodeBad(t *testing.T) {
	for _, test := range badFiles {
		t.Run(test.file, func(t *testing.T) {
			dir := scene(t)
			cfg, _, err := decode(readTestdata(t, "bad/"+test.file+".yaml"), dir, "f.yaml")
			if err == nil {
				t.Fatalf("no error, but %+v", cfg)
			}
			got := strings.ReplaceAll(err.Error(), dir, "DIR")
			if diff := cmp.Diff(strings.TrimPrefix(test.want, "\n"), got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			for _, secret := range []string{"pa55", "S3CR3T", "5e9f0a1b", "correcthorse"} {
				if strings.Contains(got, secret) {
					t.Errorf("the error shows the secret %s…", secret)
				}
			}
		})
	}
}
