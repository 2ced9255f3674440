package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// aesKey is an EncodingAESKey whose last character holds spare bits that are not zero.
const aesKey = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"

const (
	hashOne = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	hashTwo = "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9"
)

// scene prepares what the files of testdata refer to and returns the folder that they stand in.
func scene(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	credentials := t.TempDir()
	writeFile(t, filepath.Join(dir, "aes.key"), aesKey+"\n", 0o600)
	writeFile(t, filepath.Join(dir, "crlf.secret"), "from windows\r\n", 0o600)
	writeFile(t, filepath.Join(dir, "empty.secret"), "\n", 0o600)
	writeFile(t, filepath.Join(dir, "two-lines.secret"), "pa55\npa55\n", 0o600)
	writeFile(t, filepath.Join(dir, "shop.hash"), "# two\n"+hashOne+" made 2026\n\n"+hashTwo+"\n", 0o644)
	writeFile(t, filepath.Join(dir, "three.hash"), hashOne+"\n"+hashTwo+"\nno-hash\n", 0o644)
	writeFile(t, filepath.Join(dir, "credential.secret"), "beside the file", 0o600)
	writeFile(t, filepath.Join(credentials, "credential.secret"), "from systemd", 0o444)
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", credentials)
	t.Setenv("STATE_DIRECTORY", "/var/lib/unionbridge:/var/lib/other")
	t.Setenv("TEST_DSN", "u:p@tcp(h:3306)/d")
	t.Setenv("TEST_UNSET", "")
	t.Setenv("TEST_LOOPBACK", "http://127.0.0.1:9000/token")
	return dir
}

func writeFile(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // WriteFile's mode is subject to the umask
		t.Fatal(err)
	}
}

func readTestdata(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// account is the account with nothing but an appid and a secret in the file.
func account(appid, secret string) OfficialAccount {
	a := defaultAccount()
	a.AppID, a.Name, a.Secret = appid, appid, NewSecret(secret)
	return a
}

// mini is the mini program with nothing but an appid in the file.
func mini(appid string) MiniProgram {
	m := defaultMiniProgram()
	m.AppID, m.Name, m.Grants = appid, appid, "none"
	return m
}

func TestDecode(t *testing.T) {
	smallest := defaults()
	smallest.StateDir = "/var/lib/unionbridge"
	smallest.Database.DSN = NewSecret("unionbridge:secret@tcp(127.0.0.1:3306)/unionbridge")
	smallest.OfficialAccounts = []OfficialAccount{account("wx0123456789abcdef",
		"0123456789abcdef0123456789abcdef")}
	smallest.OfficialAccounts[0].Default = true
	smallest.MiniPrograms = []MiniProgram{mini("wxfedcba9876543210")}

	for _, test := range []struct {
		file string
		want *Config
	}{
		{"smallest.yaml", smallest},
		{"secrets.yaml", wantSecrets()},
		{"several.yaml", wantSeveral()},
		{"token.yaml", wantToken()},
		{"mini_only.yaml", wantMiniOnly()},
		{"applications.yaml", wantApplications()},
	} {
		t.Run(test.file, func(t *testing.T) {
			dir := scene(t)
			got, _, err := decode(readTestdata(t, "good/"+test.file), dir, test.file)
			if err != nil {
				t.Fatal(err)
			}
			got.StateDir = strings.Replace(got.StateDir, dir, "DIR", 1)
			got.Warnings = otherWarnings(got)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func wantSecrets() *Config {
	cfg := defaults()
	cfg.StateDir = "/var/lib/unionbridge"
	cfg.Database.DSN, cfg.Database.DSNEnv = NewSecret("u:p@tcp(h:3306)/d"), "TEST_DSN"
	cfg.OfficialAccounts = []OfficialAccount{
		account("wx0000000000000001", "12345678901234567890123456789012"),
		account("wx0000000000000002", "1234567890123456789012345678e123"),
		account("wx0000000000000003", "from windows"),
		account("wx0000000000000004", "from systemd"),
		account("wx0000000000000005", "block"),
	}
	cfg.OfficialAccounts[0].Default = true
	cfg.OfficialAccounts[0].Callback = &Callback{
		Token: NewSecret("0123"), AESKey: NewSecret(aesKey), AESKeyFile: "aes.key",
	}
	cfg.OfficialAccounts[2].SecretFile = "crlf.secret"
	cfg.OfficialAccounts[3].SecretFile = "credential.secret"
	cfg.MiniPrograms = []MiniProgram{mini("wx0000000000000006")}
	cfg.MiniPrograms[0].Secret = NewSecret("quoted: {# }")
	cfg.Warnings = []string{"official_accounts[0].callback: nothing listens for it; set " +
		"http.callback_listen"}
	return cfg
}

func wantSeveral() *Config {
	first := account("wx0000000000000001", "a")
	first.Name = "服务号"
	first.Sync.Sweep, first.Sync.MaxGone = "CRON_TZ=Asia/Shanghai 0 4 * * *", 0.5
	second := account("wx0000000000000002", "b")
	second.Default = true
	second.Sync = first.Sync
	second.Sync.Refresh = "@hourly"
	second.Send.Rate, second.Send.WaitForFollower = 0.5, 0

	pushed, reported := mini("wx0000000000000003"), mini("wx0000000000000004")
	pushed.Grants, pushed.Callback = "events", &Callback{Token: NewSecret("t")}
	reported.Grants = "reports"

	paid, page := strings.Repeat("A", 43), strings.Repeat("B", 43)
	return &Config{
		Database: Database{DSN: NewSecret("u:p@unix(/run/mysqld/mysqld.sock)/ub?tls=false"),
			MaxConnections: 20},
		WeChat: WeChat{
			BaseURL: "http://127.0.0.1:9000", Timeout: Duration(90 * time.Second),
			SendTimeout: Duration(20 * time.Second),
		},
		HTTP:             HTTP{Listen: ":0"},
		Log:              Log{Level: "debug", Format: "json"},
		StateDir:         "DIR/spool",
		ShutdownTimeout:  Duration(time.Minute),
		Retention:        Retention{Finished: Duration(720 * time.Hour)},
		OfficialAccounts: []OfficialAccount{first, second},
		MiniPrograms:     []MiniProgram{pushed, reported},
		Warnings: []string{"mini_programs[0].callback: nothing listens for it; set " +
			"http.callback_listen",
			"templates.order.paid.mini.id: it is of the first mini program, wx0000000000000003; " +
				"give ids with one for each appid",
			"templates.order.paid.mini: wx0000000000000003 has no secret, so it cannot send; give " +
				"it secret_file",
		},
		Templates: map[string]Template{
			"order.paid": {
				Official: OfficialTemplate{ID: paid,
					IDs: map[string]string{"wx0000000000000002": paid}},
				Mini: &MiniTemplate{ID: page, IDs: map[string]string{"wx0000000000000003": page},
					Page: "pages/order"},
				Route: []string{"official", "mini"}, Uncertain: "unknown",
			},
			"first_only": {
				Official: OfficialTemplate{IDs: map[string]string{"wx0000000000000001": strings.Repeat("C", 43)}},
				Route:    []string{"official"}, Uncertain: "unknown",
			},
		},
	}
}

func wantMiniOnly() *Config {
	cfg := defaults()
	cfg.StateDir = "/var/lib/unionbridge"
	cfg.Database.DSN = NewSecret("u:p@tcp(h)/d")
	cfg.MiniPrograms = []MiniProgram{
		mini("wx0000000000000001"), mini("wx0000000000000002"), mini("wx0000000000000003"),
	}
	cfg.MiniPrograms[0].Secret = NewSecret("0123456789abcdef0123456789abcdef")
	cfg.MiniPrograms[0].Send.Rate = 20
	cfg.MiniPrograms[1].Token = Token{Mode: "command", Command: []string{"/bin/sh"}}
	cfg.MiniPrograms[0].Sends, cfg.MiniPrograms[1].Sends = true, true
	cfg.Templates = map[string]Template{"paid": {
		Mini: &MiniTemplate{
			IDs: map[string]string{
				"wx0000000000000001": strings.Repeat("A", 43),
				"wx0000000000000002": strings.Repeat("B", 43),
				"wx0000000000000003": strings.Repeat("C", 43),
			},
			Keys: map[string]string{"goods": "thing1"}, State: "trial",
		},
		Route: []string{"mini"}, Uncertain: "repeat",
	}}
	cfg.Warnings = []string{
		"templates.paid.mini.state: trial: only the mini program's testers can open the messages' " +
			"page; use formal for everybody else",
		"templates.paid.mini: wx0000000000000003 has no secret, so it cannot send; give it secret_file",
	}
	return cfg
}

// TestDefaultAppID: requests without appid belong to the marked official account, or to the first
// mini program where there is none.
func TestDefaultAppID(t *testing.T) {
	for want, cfg := range map[string]*Config{
		"wx0000000000000002": wantSeveral(), "wx0000000000000001": wantMiniOnly(), "": defaults(),
	} {
		if got := cfg.DefaultAppID(); got != want {
			t.Errorf("the default is %q, want %q", got, want)
		}
	}
}

func wantToken() *Config {
	cfg := defaults()
	cfg.StateDir = "/var/lib/unionbridge"
	cfg.Database.DSN = NewSecret("u:p@tcp(h)/d")
	cfg.OfficialAccounts = []OfficialAccount{
		account("wx0000000000000001", "a"),
		account("wx0000000000000002", ""),
		account("wx0000000000000003", ""),
		account("wx0000000000000004", ""),
	}
	for i := 1; i < 4; i++ {
		cfg.OfficialAccounts[i].Secret = Secret{}
	}
	cfg.OfficialAccounts[0].Default = true
	cfg.OfficialAccounts[0].Token.Mode = "classic"
	cfg.OfficialAccounts[1].Token = Token{
		Mode: "url", URL: NewSecret("https://tokens.example/wx?key=1"),
		Header: map[string]HeaderValue{
			"Authorization": {Value: NewSecret("from systemd"), ValueFile: "credential.secret"},
			"X-App":         {Value: NewSecret("7")},
			"X-Dsn":         {Value: NewSecret("u:p@tcp(h:3306)/d"), ValueEnv: "TEST_DSN"},
		},
	}
	cfg.OfficialAccounts[2].Token = Token{Mode: "url",
		URL: NewSecret("http://127.0.0.1:9000/token"), URLEnv: "TEST_LOOPBACK"}
	cfg.OfficialAccounts[3].Token = Token{Mode: "command",
		Command: []string{"/bin/sh", "-c", "echo $0", "wx0000000000000004"}}
	cfg.Warnings = []string{"official_accounts[0].token.mode: classic ends the tokens of every " +
		"other program and instance; run one instance, or use stable"}
	return cfg
}

func wantApplications() *Config {
	cfg := defaults()
	cfg.StateDir = "/var/lib/unionbridge"
	cfg.Database.DSN = NewSecret("u:p@tcp(h)/d")
	cfg.HTTP.APIListen, cfg.HTTP.APIPlain = "10.0.0.5:8082", true
	cfg.HTTP.APIProxyFrom = []string{"10.0.0.1/32"}
	cfg.OfficialAccounts = []OfficialAccount{account("wx0000000000000001", "a")}
	cfg.OfficialAccounts[0].Default = true
	cfg.MiniPrograms = []MiniProgram{mini("wx0000000000000002")}
	cfg.MiniPrograms[0].Secret = NewSecret("b")
	const id = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	cfg.Templates = map[string]Template{"paid": {
		Official: OfficialTemplate{ID: id, IDs: map[string]string{"wx0000000000000001": id}},
		Route:    []string{RouteOfficial}, Uncertain: UncertainUnknown,
	}}
	cfg.Applications = []Application{{
		Name: "shop", SecretHashFile: "shop.hash", SecretHashes: []string{hashOne, hashTwo},
		Accounts: map[string][]string{"wx0000000000000001": {CallTemplateSend},
			"wx0000000000000002": {CallLogin, CallSubscribeSend}},
		Templates: []string{"paid", strings.Repeat("B", 43)},
		Limit:     Limit{Minute: 600, Day: 100000}, Networks: []string{"10.0.0.0/8", "fd00::1/128"},
		DuplicateWindow: Duration(time.Minute), Forward: []string{"/wxa/getwxacodeunlimit", "/wxa/msg_sec_check"},
	}, {
		Name: "till", SecretHashes: []string{strings.Repeat("0", 62) + "ab"}, Priority: 1,
		Accounts: map[string][]string{"wx0000000000000001": {CallTemplateSend}}, Disabled: true,
	}}
	return cfg
}

// TestTestdataIsUsed notices a file that no test reads.
func TestTestdataIsUsed(t *testing.T) {
	used := map[string]bool{"good/smallest.yaml": true, "good/secrets.yaml": true,
		"good/several.yaml": true, "good/token.yaml": true, "good/mini_only.yaml": true,
		"good/applications.yaml": true}
	for _, test := range badFiles {
		used["bad/"+test.file+".yaml"] = true
	}
	files, err := filepath.Glob("testdata/*/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name, _ := filepath.Rel("testdata", file)
		if !used[filepath.ToSlash(name)] {
			t.Errorf("testdata/%s: no test reads it", name)
		}
	}
}
