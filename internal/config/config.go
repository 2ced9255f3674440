// Package config turns the operator's YAML file into a [Config] that the rest of the program can
// trust: unknown keys refused, defaults filled in, secrets fetched, every value checked.
//
// It owns the names of the file's keys (they are an interface: units and scripts type them) and the
// words in which a mistake is reported. It opens no connection and knows no other package of the
// program; a feature package gets its own configuration struct from the command that wires it.
package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// MaxSendTimeout bounds wechat.send_timeout. A claimed request is invisible to other senders for
// 60 s; a POST must have ended, and its outcome been written, well before the row falls due again,
// or a second sender posts the same message. A third of the window leaves room for a slow settle.
const MaxSendTimeout = Duration(20 * time.Second)

// MaxResendWindow bounds official_accounts[].send.resend_window: WeChat drops a repetition within
// 10 minutes of the first message only. The repetition's POST may arrive MaxSendTimeout after it
// began, a process may be held up between the last look at the clock and the POST, and WeChat's
// clock is not ours: a minute is left for that, as long as a claim lasts.
const MaxResendWindow = Duration(9 * time.Minute)

const (
	// maxWait bounds what becomes a moment in the database, whose moments end in 2038: a year.
	maxWait = Duration(365 * 24 * time.Hour)
	// maxRetention is ten years; 0s keeps for ever.
	maxRetention = 10 * maxWait
	// maxTimeout and maxShutdown are far above what is of use, and show a wrong unit.
	maxTimeout  = Duration(10 * time.Minute)
	maxShutdown = Duration(time.Hour)
)

// maxFileSize bounds what Load reads: a configuration is a few KB, and a wrong path (a database
// dump, a device) should not be parsed.
const maxFileSize = 1 << 20

// Config is the whole file after defaults, secrets and validation.
type Config struct {
	Database Database `yaml:"database"`
	WeChat   WeChat   `yaml:"wechat"`
	HTTP     HTTP     `yaml:"http"`
	Log      Log      `yaml:"log"`

	// StateDir (state_dir) holds the sweep's spool files: up to 30 bytes per follower and account,
	// and nothing that cannot be read again from WeChat. Default: $STATE_DIRECTORY, which systemd
	// sets, else unionbridge below the user's cache directory. Always absolute after Load.
	StateDir string `yaml:"state_dir"`

	// ShutdownTimeout (shutdown_timeout) is how long SIGTERM lets messages under way finish.
	// Default 25s: longer than the longest send (MaxSendTimeout), shorter than the 30 s after which
	// container platforms kill.
	ShutdownTimeout Duration `yaml:"shutdown_timeout"`

	Retention Retention `yaml:"retention"`

	OfficialAccounts []OfficialAccount `yaml:"official_accounts"`
	MiniPrograms     []MiniProgram     `yaml:"mini_programs"`

	// Templates maps an alias, which producers write in send_request.template, to WeChat's ids.
	Templates map[string]Template `yaml:"templates"`

	// Applications are the programs that may use the doors, http.api_listen.
	Applications []Application `yaml:"applications"`

	// Warnings are things that work and should not stay so, one sentence each, for example a secret
	// file that everybody on the machine can read. The caller logs them.
	Warnings []string `yaml:"-"`
}

// Database says where the map and the requests live.
type Database struct {
	// DSN is a data source name of go-sql-driver/mysql: user:password@tcp(host:port)/database.
	// https://github.com/go-sql-driver/mysql#dsn-data-source-name
	DSN     Secret `yaml:"dsn"`
	DSNFile string `yaml:"dsn_file"`
	DSNEnv  string `yaml:"dsn_env"`

	// MaxConnections bounds the pool of one process, 3 to 1000. Default 8: more than a handful made
	// a 2-core server slower, and DBAs count connections.
	MaxConnections int `yaml:"max_connections"`
}

// WeChat says how to reach the platform's servers.
type WeChat struct {
	// BaseURL has no trailing slash after Load. Default https://api.weixin.qq.com; plain http is
	// accepted for this machine only (the simulator), because tokens and secrets travel in URLs.
	BaseURL string `yaml:"base_url"`

	// Timeout bounds one attempt of a read (lists, user info, templates, tokens). Default 30s: a
	// list page holds 10,000 openids.
	Timeout Duration `yaml:"timeout"`

	// SendTimeout bounds the one POST of a message. Default 10s, at most MaxSendTimeout.
	SendTimeout Duration `yaml:"send_timeout"`

	// QuotaResetHour is the hour of the day in China at which WeChat resets its daily quotas, 0 to
	// 23. Default 0: WeChat does not say; midnight is what its users see.
	QuotaResetHour int `yaml:"quota_reset_hour"`
}

// Retention says how long finished requests are kept.
type Retention struct {
	Finished Duration `yaml:"finished"` // from its end until it is deleted; 0s: never. Default 720h
	Archive  bool     `yaml:"archive"`  // to send_request_archive, before that. Default false
}

// HTTP says where the daemon listens.
type HTTP struct {
	// Listen serves health and metrics, without authentication. Default 127.0.0.1:8080, so that
	// nothing is public by accident.
	Listen string `yaml:"listen"`
	// CallbackListen serves what WeChat pushes, /wechat/{appid}. Empty (the default): off.
	CallbackListen string `yaml:"callback_listen"`

	// APIListen serves the doors of applications. Empty (the default): off. Beyond this machine it
	// needs APITLS, or APIPlain with a private address and with networks for each application.
	APIListen string `yaml:"api_listen"`
	APITLS    APITLS `yaml:"api_tls"`
	APIPlain  bool   `yaml:"api_plain"`
	// APIProxyFrom are the networks of proxies whose X-Forwarded-For counts, as CIDR after Load.
	APIProxyFrom []string `yaml:"api_proxy_from"`
}

// Log says what is logged, to standard error.
type Log struct {
	Level  string `yaml:"level"`  // debug, info (default), warn or error
	Format string `yaml:"format"` // text (default) or json
}

// OfficialAccount is one official account (公众号/服务号): its followers, its messages.
type OfficialAccount struct {
	AppID string `yaml:"appid"` // wx and 16 hexadecimal digits
	Name  string `yaml:"name"`  // for people: logs, status; default: the appid

	// Default marks the account that serves requests without an appid. Where no account says so it
	// is the first one; after Load exactly one is marked. See Config.DefaultAppID.
	Default bool `yaml:"default"`

	// Secret is the AppSecret; after Load it is set however it was given. Not needed where the
	// token comes from the company's own server or command.
	Secret     Secret `yaml:"secret"`
	SecretFile string `yaml:"secret_file"`
	SecretEnv  string `yaml:"secret_env"`

	Token    Token     `yaml:"token"`
	Callback *Callback `yaml:"callback"` // nil: this account's pushes are not received
	Sync     Sync      `yaml:"sync"`
	Send     Send      `yaml:"send"`
}

// Token says where access tokens come from. Keys of other modes are refused.
type Token struct {
	// Mode is "stable" (default): WeChat's stable_token, which gives every program the same token;
	// "classic": fetched by this one instance, which ends every other program's; "url" or
	// "command": from the company's own token server, which alone renews it. In these two no
	// AppSecret is needed.
	Mode string `yaml:"mode"`

	// URL is the token server's, asked with GET. A Secret because its query may carry a key. Plain
	// http is accepted for this machine only.
	URL     Secret `yaml:"url"`
	URLFile string `yaml:"url_file"`
	URLEnv  string `yaml:"url_env"`

	Header  map[string]HeaderValue `yaml:"header"`  // goes along, by name
	Command []string               `yaml:"command"` // an absolute path and arguments; no shell
}

// HeaderValue is the value of one HTTP header line; after Load Value is set however it was given.
type HeaderValue struct {
	Value     Secret `yaml:"value"`
	ValueFile string `yaml:"value_file"`
	ValueEnv  string `yaml:"value_env"`
}

// Callback holds what the platform's console calls Token and EncodingAESKey of the push URL.
type Callback struct {
	Token     Secret `yaml:"token"`
	TokenFile string `yaml:"token_file"`
	TokenEnv  string `yaml:"token_env"`

	// AESKey has 43 characters. Without it pushes are understood in plaintext mode only.
	AESKey     Secret `yaml:"aes_key"`
	AESKeyFile string `yaml:"aes_key_file"`
	AESKeyEnv  string `yaml:"aes_key_env"`

	// PreviousAESKey is accepted too, while the platform changes from one key to the next.
	PreviousAESKey     Secret `yaml:"previous_aes_key"`
	PreviousAESKeyFile string `yaml:"previous_aes_key_file"`
	PreviousAESKeyEnv  string `yaml:"previous_aes_key_env"`
}

// Sync says how an account's follower list is kept in step.
type Sync struct {
	// Sweep is when the whole list is read, a cron line in local time (CRON_TZ=Asia/Shanghai in
	// front of it fixes the zone). Default "17 3 * * *". A sweep costs one call per 10,000
	// followers and one more, of the 500 user/get calls a day.
	Sweep string `yaml:"sweep"`

	Refresh string `yaml:"refresh"` // when rows in doubt are checked. Default "@every 5m"

	// MaxGone is the share of an account's followers that one sweep may mark as gone; beyond it the
	// sweep stops and alarms, because an odd answer is likelier than such a loss. Default 5%.
	MaxGone Percent `yaml:"max_gone"`

	QuotaReserve Percent `yaml:"quota_reserve"` // of each daily quota, for others. Default 10%
	KeepRuns     int     `yaml:"keep_runs"`     // of each kind, 10 to 1000000. Default 100
	Concurrency  int     `yaml:"concurrency"`   // batches of 100 at once, 1 to 1000. Default 8
}

// Send says how fast and how stubbornly an account sends.
type Send struct {
	// Rate is messages a second for the account, over all instances. Default 200: no limit is
	// documented, and bursts of several hundred at once have been answered with -1 "system error".
	Rate float64 `yaml:"rate"`

	Concurrency int `yaml:"concurrency"`  // POSTs under way at once, 1 to 1000. Default 64
	MaxAttempts int `yaml:"max_attempts"` // of one message until it fails, 1 to 100. Default 8

	// WaitForFollower is how long a request waits for an unknown recipient. Default 72h; 0s: none.
	WaitForFollower Duration `yaml:"wait_for_follower"`

	// ResendWindow is how long after an attempt whose outcome is not known it may be repeated, at
	// most MaxResendWindow, which is the default; 0s: never.
	ResendWindow Duration `yaml:"resend_window"`

	// Preflight checks each message against the account's templates before a call. Default true.
	Preflight bool `yaml:"preflight"`

	// DailyBudget is how many messages a day the account sends at most, over all instances; 0
	// (default): as many as WeChat allows.
	DailyBudget int64 `yaml:"daily_budget"`

	// UrgentReserve is the share of a day's messages only for urgent (priority 0) ones. Default 5%.
	UrgentReserve Percent `yaml:"urgent_reserve"`

	// BlockedFor is how long requests to a person fail at once after a receipt said "user block";
	// 0s: not at all. Default 24h.
	BlockedFor Duration `yaml:"blocked_for"`
}

// MiniProgram is one mini program (小程序) whose users are recipients, and which may send subscribe
// messages.
type MiniProgram struct {
	AppID string `yaml:"appid"` // wx and 16 hexadecimal digits
	Name  string `yaml:"name"`  // default: the appid

	// Secret is needed to send, unless the token comes from elsewhere, and to exchange login codes
	// (jscode2session); optional where the mini program does neither. See Secret.IsSet.
	Secret     Secret `yaml:"secret"`
	SecretFile string `yaml:"secret_file"`
	SecretEnv  string `yaml:"secret_env"`

	Token    Token     `yaml:"token"`
	Callback *Callback `yaml:"callback"` // nil: this mini program's pushes are not received

	// Grants is what acceptances of subscribe messages are counted by: events (WeChat's pushes),
	// reports (what apps INSERT into subscription_report), both, or none: WeChat alone decides.
	// Default: events with a callback, none without.
	Grants string `yaml:"grants"`

	Send MiniSend `yaml:"send"`
	// Sends reports, after Load, whether the mini program is an account that sends: the file has
	// its send, an alias has a template of it and there is a secret, or there is no official account.
	Sends bool `yaml:"-"`
}

// MiniSend says how fast and how stubbornly a mini program sends.
type MiniSend struct {
	// Rate is messages a second, over all instances. Default 100: no limit is documented.
	Rate        float64 `yaml:"rate"`
	Concurrency int     `yaml:"concurrency"`  // POSTs under way at once, 1 to 1000. Default 16
	MaxAttempts int     `yaml:"max_attempts"` // of one message until it fails, 1 to 100. Default 8

	// WaitForGrant is how long a request waits for a person who is not known, or has not accepted
	// the template. Default 72h; 0s: it does not wait.
	WaitForGrant Duration `yaml:"wait_for_grant"`

	// Preflight checks each message against the mini program's templates first. Default true.
	Preflight bool `yaml:"preflight"`

	DailyBudget   int64   `yaml:"daily_budget"`   // messages a day at most; 0 (default): no limit
	UrgentReserve Percent `yaml:"urgent_reserve"` // for urgent ones alone. Default 5%
}

// Template is what an alias stands for.
type Template struct {
	Official OfficialTemplate `yaml:"official"`
	Mini     *MiniTemplate    `yaml:"mini"` // nil: none

	// Route is the order in which the channels are tried, of RouteOfficial and RouteMini. Default:
	// those that have a template, the official account first.
	Route []string `yaml:"route"`

	// Uncertain is what becomes of a subscribe message whose outcome is not known: unknown
	// (default), or repeat, for which a second message is better than none.
	Uncertain string `yaml:"uncertain"`

	// Replaces lists ids of templates that this one has taken the place of: messages that programs
	// still send by form_id, which WeChat ended on 2020-01-10, become this one's.
	Replaces []string `yaml:"replaces"`
}

// The elements of templates.<name>.route.
const (
	RouteOfficial = "official"
	RouteMini     = "mini"
)

// The values of templates.<name>.uncertain.
const (
	UncertainUnknown = "unknown"
	UncertainRepeat  = "repeat"
)

// OfficialTemplate holds a message template's ids: each account has its own.
type OfficialTemplate struct {
	ID string `yaml:"id"` // in the default account

	// IDs maps appids to ids. After Load it holds ID too, under the default account's appid, so
	// that it alone answers "what is this template's id in that account"; an account without an
	// entry cannot use the alias.
	IDs map[string]string `yaml:"ids"`

	// Truncate cuts values of type thing that are longer than WeChat takes, instead of refusing the
	// request. The row says so. Default false.
	Truncate bool `yaml:"truncate"`
}

// MiniTemplate is a mini program's subscribe-message template, and what its messages have in common.
type MiniTemplate struct {
	ID string `yaml:"id"` // in the first mini program

	// IDs maps appids to ids, as in OfficialTemplate. After Load it holds ID too.
	IDs map[string]string `yaml:"ids"`

	Page string `yaml:"page"` // what a tap opens, where a request does not say it

	// Keys maps the names that requests use to this template's own, such as thing1 to thing2.
	Keys map[string]string `yaml:"keys"`

	State string `yaml:"state"` // formal (default), or trial or developer: for testers alone
	Lang  string `yaml:"lang"`  // zh_CN (default), en_US, zh_HK, zh_TW

	Truncate bool `yaml:"truncate"` // as in OfficialTemplate
}

// DefaultAppID is the account that serves requests without an appid: the default official account,
// or without any the first mini program.
func (c *Config) DefaultAppID() string {
	for _, a := range c.OfficialAccounts {
		if a.Default {
			return a.AppID
		}
	}
	if len(c.MiniPrograms) > 0 {
		return c.MiniPrograms[0].AppID
	}
	return ""
}

// Load reads the file at path. A file that is no YAML, or holds a value of the wrong kind, gives
// one error with line, column and an excerpt; everything else that is wrong is reported at once,
// one line each (errors.Join). No error shows a secret. A file that is readable for everybody and
// holds a secret itself adds a warning.
func Load(path string) (*Config, error) {
	data, mode, err := readBounded(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf(`%w; "unionbridge config example" prints one to start from`, err)
	}
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("finding the folder of %s: %w", path, err)
	}
	cfg, inline, err := decode(data, dir, path)
	if err != nil {
		return nil, err
	}
	if inline && readableByAll(mode) {
		cfg.Warnings = append(cfg.Warnings, fmt.Sprintf(
			"%s holds secrets and every user of this machine can read it (mode %04o): chmod 640, "+
				"or keep the secrets in files of their own",
			path, mode.Perm()))
	}
	return cfg, nil
}

// decode resolves relative file names in data against baseDir, and begins every error with name.
// inline reports whether a secret stood in data itself.
func decode(data []byte, baseDir, name string) (cfg *Config, inline bool, err error) {
	ps := &problems{name: name}
	cfg = defaults()
	if err := decodeYAML(data, cfg, ps); err != nil {
		return nil, false, err
	}
	r := &resolver{
		baseDir: baseDir, credentialsDir: os.Getenv("CREDENTIALS_DIRECTORY"), problems: ps,
	}
	r.secrets(cfg)
	r.stateDir(cfg)
	validate(cfg, ps)
	if err := ps.err(); err != nil {
		return nil, false, err
	}
	settle(cfg)
	cfg.Warnings = slices.Concat(r.warnings, warnings(cfg))
	return cfg, r.inline, nil
}

// readBounded reads a regular file, or a pipe (<(…) of a shell), of at most maxFileSize bytes.
func readBounded(path string) ([]byte, fs.FileMode, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, 0, err
	}
	if len(data) > maxFileSize {
		return nil, 0, fmt.Errorf("reading %s: larger than %d bytes, surely not the file meant",
			path, maxFileSize)
	}
	return data, info.Mode(), nil
}
