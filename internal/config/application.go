package config

import (
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
)

// Application is a program that uses the doors: who it is, and what it may do.
type Application struct {
	Name string `yaml:"name"` // of a-z, 0-9, underscore, dot and hyphen; stands in its requests

	// SecretHashFile holds one hash of its secret, or two during a change, one a line: what
	// "unionbridge application secret" writes. What follows a hash on its line is a comment.
	SecretHashFile string `yaml:"secret_hash_file"`
	// SecretHashes holds them after Load however they were given: the SHA-256 of each secret in 64
	// hexadecimal digits, the newest first. A secret has 128 random bits, so no hash yields it.
	SecretHashes []string `yaml:"secret_hashes"`

	// Accounts maps the appids that it may use to its calls there, of the Call constants.
	Accounts map[string][]string `yaml:"accounts"`

	// Templates are the aliases and ids that it may send; none: all.
	Templates []string `yaml:"templates"`

	// Priority is its requests': 0 urgent, 1 normal (default), 2 bulk. No SDK can name one.
	Priority int `yaml:"priority"`

	Limit Limit `yaml:"limit"`

	// Networks are where it calls from, as CIDR after Load; none: anywhere.
	Networks []string `yaml:"networks"`

	// DuplicateWindow is how long an equal message of a caller who gives no key of its own is taken
	// for a repetition. 0s (default): never. At most an hour, as long as finished requests are
	// kept.
	DuplicateWindow Duration `yaml:"duplicate_window"`

	// Forward lists other paths of WeChat's that it may call, of ForwardPaths.
	Forward []string `yaml:"forward"`

	Echo *Echo `yaml:"echo"` // nil: it is not told what becomes of its messages

	Disabled bool `yaml:"disabled"` // its secrets and tokens are refused
}

// Echo is where an application is told what became of its messages, as WeChat tells an account.
type Echo struct {
	URL       string `yaml:"url"`
	TokenFile string `yaml:"token_file"`
	TokenEnv  string `yaml:"token_env"`
	Token     Secret `yaml:"token"` // signs what it is told
}

// Limit is how many requests of an application are accepted, over all instances; 0: no limit.
type Limit struct {
	Minute int64 `yaml:"minute"`
	Day    int64 `yaml:"day"` // WeChat's, which begins at wechat.quota_reset_hour in China
}

// The elements of applications[].accounts.<appid>.
const (
	CallTemplateSend  = "template_send"
	CallSubscribeSend = "subscribe_send"
	CallUniformSend   = "uniform_send"
	CallLogin         = "login"
	CallIdentities    = "identities"
	CallGrants        = "grants"
)

func defaultApplication() Application { return Application{Priority: 1} }

// UnmarshalYAML sets an application's defaults before its keys.
func (a *Application) UnmarshalYAML(unmarshal func(any) error) error {
	type plain Application
	p := plain(defaultApplication())
	if err := unmarshal(&p); err != nil {
		return err
	}
	*a = Application(p)
	return nil
}

// HashFile returns the path of an application's secret_hash_file in the configuration at path. It
// needs no right configuration otherwise: one that names a file is wrong until the file is there.
func HashFile(path, application string) (string, error) {
	data, _, err := readBounded(path)
	if err != nil {
		return "", err
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return "", fmt.Errorf("finding the folder of %s: %w", path, err)
	}
	cfg := defaults()
	if err := decodeYAML(data, cfg, &problems{name: path}); err != nil {
		return "", err
	}
	for i, a := range cfg.Applications {
		at := fmt.Sprintf("%s: applications[%d].secret_hash_file", path, i)
		switch {
		case a.Name != application:
		case a.SecretHashFile == "":
			return "", fmt.Errorf("%s: missing; name the file there first", at)
		case looksSecret(a.SecretHashFile):
			return "", fmt.Errorf("%s: this takes the name of a file, not the value itself", at)
		default:
			r := &resolver{baseDir: dir}
			file, _ := r.locate(a.SecretHashFile)
			return file, nil
		}
	}
	return "", fmt.Errorf("%s: applications: none is called %s; add it there first, with name and "+
		"secret_hash_file", path, quote(application))
}

// IsApplicationName reports whether an application may be called name.
func IsApplicationName(name string) bool { return applicationName.MatchString(name) }

// ParseHashes returns the hashes in a secret_hash_file: the first word of each line.
func ParseHashes(text string) []string {
	var hashes []string
	for line := range strings.Lines(text) {
		if words := strings.Fields(line); len(words) > 0 && !strings.HasPrefix(words[0], "#") {
			hashes = append(hashes, words[0])
		}
	}
	return hashes
}

// hashes fetches each application's hashes from its file.
func (r *resolver) hashes(cfg *Config) {
	for i := range cfg.Applications {
		a := &cfg.Applications[i]
		path := fmt.Sprintf("applications[%d].secret_hash_file", i)
		const cure = `"unionbridge application secret %s --write" makes it, and a secret`
		switch {
		case a.SecretHashFile == "" && len(a.SecretHashes) == 0:
			r.problems.add(path, "missing; name a file there, then "+cure, shown(a.Name))
		case a.SecretHashFile != "" && len(a.SecretHashes) > 0:
			r.problems.add(path, "given twice; keep one of secret_hash_file and secret_hashes")
		case a.SecretHashFile != "":
			data, _, ok := r.file(path, a.SecretHashFile, fmt.Sprintf(cure, shown(a.Name)))
			if a.SecretHashes = ParseHashes(string(data)); ok && len(a.SecretHashes) == 0 {
				r.problems.add(path, "the file is empty; "+cure, shown(a.Name))
			}
		}
	}
}

// shown is an application's name in a command that the operator may copy.
func shown(name string) string {
	if applicationName.MatchString(name) {
		return name
	}
	return "NAME"
}

// fillApplications sets the defaults of a dash with nothing behind it, which is not unmarshalled.
func fillApplications(list []Application) {
	for i, a := range list {
		if reflect.ValueOf(a).IsZero() {
			list[i] = defaultApplication()
		}
	}
}
