package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// maxSecretSize bounds a secret's file: the longest, a DSN with options, is a few hundred bytes.
const maxSecretSize = 16 << 10

type resolver struct {
	baseDir string // relative names start here
	// systemd's LoadCredential= and SetCredential= put files here; "": not under systemd
	credentialsDir string
	problems       *problems
	warnings       []string
	inline         bool // a secret stood in the configuration itself
}

// secretField is one secret and the two other ways to give it.
type secretField struct {
	path     string // of the inline key; _file and _env are appended
	value    *Secret
	file     string
	env      string
	optional bool
}

func (r *resolver) secrets(cfg *Config) {
	r.fetch(secretField{"database.dsn", &cfg.Database.DSN, cfg.Database.DSNFile,
		cfg.Database.DSNEnv, false})
	for i := range cfg.OfficialAccounts {
		a := &cfg.OfficialAccounts[i]
		path := fmt.Sprintf("official_accounts[%d]", i)
		own := a.Token.external()
		r.fetch(secretField{path + ".secret", &a.Secret, a.SecretFile, a.SecretEnv, own})
		r.token(path+".token", &a.Token)
		r.callback(path+".callback", a.Callback)
	}
	for i := range cfg.MiniPrograms {
		m := &cfg.MiniPrograms[i]
		path := fmt.Sprintf("mini_programs[%d]", i)
		own := m.Token.external() || !m.Sends && !mustSend(cfg, i)
		r.fetch(secretField{path + ".secret", &m.Secret, m.SecretFile, m.SecretEnv, own})
		r.token(path+".token", &m.Token)
		r.callback(path+".callback", m.Callback)
	}
	for i, a := range cfg.Applications {
		if e := a.Echo; e != nil {
			path := fmt.Sprintf("applications[%d].echo.token", i)
			r.fetch(secretField{path, &e.Token, e.TokenFile, e.TokenEnv, false})
		}
	}
	r.hashes(cfg)
	r.apiTLS(&cfg.HTTP.APITLS)
}

func (r *resolver) callback(path string, c *Callback) {
	if c == nil {
		return
	}
	r.fetch(secretField{path + ".token", &c.Token, c.TokenFile, c.TokenEnv, false})
	r.fetch(secretField{path + ".aes_key", &c.AESKey, c.AESKeyFile, c.AESKeyEnv, true})
	r.fetch(secretField{path + ".previous_aes_key", &c.PreviousAESKey, c.PreviousAESKeyFile,
		c.PreviousAESKeyEnv, true})
}

// token reads the token server's address and header, which belong to mode url alone.
func (r *resolver) token(path string, t *Token) {
	if t.Mode != tokenURL {
		return
	}
	r.fetch(secretField{path + ".url", &t.URL, t.URLFile, t.URLEnv, false})
	for _, name := range slices.Sorted(maps.Keys(t.Header)) {
		at := path + ".header." + name
		if !headerName.MatchString(name) {
			r.problems.add(path+".header",
				"a name is 1 to 40 letters, digits and hyphens, such as Authorization")
			continue
		}
		v := t.Header[name]
		r.fetch(secretField{at + ".value", &v.Value, v.ValueFile, v.ValueEnv, false})
		t.Header[name] = v
	}
}

// variable is a value that a shell would replace, and this file does not.
var variable = regexp.MustCompile(`^\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?$`)

func (r *resolver) fetch(f secretField) {
	key := f.path[strings.LastIndex(f.path, ".")+1:]
	inline, file, env := f.value.IsSet(), f.file != "", f.env != ""
	switch {
	case !inline && !file && !env && !f.optional:
		r.problems.add(f.path, "missing; give %s_file, %s_env or %s", key, key, key)
	case inline && (file || env) || file && env:
		r.problems.add(f.path, "given more than once; keep exactly one of %s, %s_file and %s_env",
			key, key, key)
	case inline:
		r.inline = true
		*f.value = NewSecret(trimSecret(f.value.Reveal()))
		if f.value.Reveal() == "" {
			r.problems.add(f.path, "empty")
		}
		if variable.MatchString(f.value.Reveal()) {
			r.problems.add(f.path, "looks like a shell's variable, and nothing replaces it here; "+
				"give its name as %s_env, without the $", key)
		}
	case file:
		r.fromFile(f)
	case env:
		r.fromEnv(f)
	}
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (r *resolver) fromEnv(f secretField) {
	path := f.path + "_env"
	if !envName.MatchString(f.env) || looksSecret(f.env) {
		r.problems.add(path, "this takes the name of an environment variable, not the value itself")
		return
	}
	value := trimSecret(os.Getenv(f.env))
	if value == "" {
		r.problems.add(path, "environment variable %s is not set or empty", f.env)
		return
	}
	*f.value = NewSecret(value)
}

func (r *resolver) fromFile(f secretField) {
	path := f.path + "_file"
	data, mode, ok := r.file(path, f.file, "create it, readable for the daemon's user alone")
	if !ok {
		return
	}
	name, credential := r.locate(f.file)
	value := trimSecret(string(data))
	switch {
	case value == "":
		r.problems.add(path, "%s is empty", name)
	case len(value) > maxSecretSize || strings.ContainsAny(value, "\r\n\x00"):
		r.problems.add(path, "%s holds more than one line; it must hold the secret and nothing else", name)
	default:
		*f.value = NewSecret(value)
		if readableByAll(mode) && !credential {
			r.warnings = append(r.warnings, fmt.Sprintf(
				"%s: every user of this machine can read %s (mode %04o): chmod 640", path, name,
				mode.Perm()))
		}
	}
}

// file reads the file that the key at path names; missing is the cure where it does not exist. What
// prevents it is reported, and ok is false then.
func (r *resolver) file(path, file, missing string) (data []byte, mode fs.FileMode, ok bool) {
	if looksSecret(file) {
		r.problems.add(path, "this takes the name of a file, not the value itself")
		return nil, 0, false
	}
	name, _ := r.locate(file)
	data, mode, err := readBounded(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.problems.add(path, "%s does not exist; %s", name, missing)
	case errors.Is(err, fs.ErrPermission):
		r.problems.add(path, "%s may not be read by this user; give it to the daemon's user or "+
			"group", name)
	case err != nil:
		r.problems.add(path, "%w", err)
	}
	return data, mode, err == nil
}

// trimSecret drops the newline with which editors, echo and YAML's block text end a value.
func trimSecret(value string) string { return strings.TrimRight(value, "\r\n") }

// locate finds a secret's file. Under systemd a relative name is looked up among the unit's
// credentials first, so that one configuration serves with and without LoadCredential=.
func (r *resolver) locate(name string) (path string, credential bool) {
	if filepath.IsAbs(name) {
		return name, false
	}
	if r.credentialsDir != "" && filepath.IsLocal(name) {
		path := filepath.Join(r.credentialsDir, name)
		if _, err := os.Stat(path); err == nil {
			return path, true
		}
	}
	return filepath.Join(r.baseDir, name), false
}

// stateDir makes cfg.StateDir absolute or finds its default.
func (r *resolver) stateDir(cfg *Config) {
	// A unit with several StateDirectory= entries gets them in one variable; ours stands first.
	unit, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	cache, err := os.UserCacheDir()
	switch {
	case filepath.IsAbs(cfg.StateDir):
	case cfg.StateDir != "":
		cfg.StateDir = filepath.Join(r.baseDir, cfg.StateDir)
	case unit != "":
		cfg.StateDir = unit
	case err != nil:
		r.problems.add("state_dir", "missing, and this user has no cache directory to default "+
			"to; name a folder")
	default:
		cfg.StateDir = filepath.Join(cache, "unionbridge")
	}
}

// readableByAll looks at regular files alone: a pipe's mode says nothing.
func readableByAll(mode fs.FileMode) bool { return mode.IsRegular() && mode.Perm()&0o004 != 0 }
