package checkup

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"unicode/utf8"
)

// ofSecret matches a line of a configuration's error that is about a secret.
var ofSecret = regexp.MustCompile(
	`(?:^|[.\s])(?:secret|token|aes_key|previous_aes_key|dsn|value)(?:_file|_env)?: `)

// checkFile looks at the text first: what an editor or an input method has put there is not seen.
func checkFile(_ context.Context, e *exam) (found []finding) {
	data := e.ConfigData
	if bytes.HasPrefix(data, []byte("\ufeff")) {
		found = append(found, bad(Warn, e.ConfigPath+":1:1: U+FEFF, a byte order mark", "bom", e.ConfigPath))
	}
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
		if at := strings.IndexByte(indent, '\t'); at >= 0 && strings.TrimSpace(line) != "" && utf8.Valid(data) {
			found = append(found, bad(Fail, fmt.Sprintf("%s:%d:%d: U+0009, a tab in the indent",
				e.ConfigPath, number, at+1), "tab", number))
			break
		}
	}
	for _, line := range e.errorLines() {
		if !ofSecret.MatchString(line) {
			found = append(found, finding{state: Fail, seen: line})
		}
	}
	if e.ConfigErr != nil && e.ConfigData == nil && len(found) == 0 {
		found = append(found, finding{state: Fail, seen: e.ConfigErr.Error()})
	}
	if found == nil && e.ConfigErr != nil {
		return []finding{bad(Fail, e.ConfigPath+" cannot be used, see secrets", "problem",
			"unionbridge config check")}
	}
	if found == nil {
		return []finding{ok("%s can be used", e.ConfigPath)}
	}
	return found
}

// errorLines are the problems of the configuration, without the excerpts below them.
func (e *exam) errorLines() (lines []string) {
	if e.ConfigErr == nil {
		return nil
	}
	for line := range strings.Lines(e.ConfigErr.Error()) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, e.ConfigPath) || strings.HasPrefix(line, "open ") {
			lines = append(lines, line)
		}
	}
	return lines
}

var appSecret = regexp.MustCompile(`^[0-9a-f]{32}$`)

const aesKeyLength = 43

func checkSecrets(_ context.Context, e *exam) (found []finding) {
	for _, line := range e.errorLines() {
		if ofSecret.MatchString(line) {
			found = append(found, finding{state: Fail, seen: line})
		}
	}
	if e.ConfigErr != nil && found == nil {
		return []finding{skip("depends on file")}
	}
	files := map[string]bool{}
	for _, s := range e.Secrets {
		path := s.Path
		if path == "" {
			path = e.ConfigPath
		}
		if info, err := os.Stat(path); !files[path] && err == nil && readableByAll(info.Mode()) {
			found = append(found, bad(Fail, fmt.Sprintf("%s: every user of this machine can read %s (mode %04o)",
				s.Key, path, info.Mode().Perm()), "chmod", path))
		}
		files[path] = true
		if f := s.check(); f != nil {
			found = append(found, *f)
		}
	}
	if found == nil {
		return []finding{ok("%d secrets look right", len(e.Secrets))}
	}
	return found
}

func readableByAll(mode fs.FileMode) bool { return mode.IsRegular() && mode.Perm()&0o004 != 0 }

// check says what is wrong with the form of a value, and never the value.
func (s Secret) check() *finding {
	var f finding
	switch {
	case strings.TrimSpace(s.Value) != s.Value:
		f = bad(Fail, s.Key+" begins or ends with a blank", "blank", s.Key)
	case strings.HasPrefix(s.Value, "$"):
		f = bad(Fail, s.Key+" begins with $", "variable", s.Key)
	case s.Kind == AppSecret && !appSecret.MatchString(s.Value):
		f = bad(Fail, fmt.Sprintf("%s has %d characters, and is no AppSecret", s.Key, len(s.Value)), "appsecret", s.Key)
	case s.Kind == AESKey && len(s.Value) != aesKeyLength:
		f = bad(Fail, fmt.Sprintf("%s has %d characters", s.Key, len(s.Value)), "aeskey", s.Key)
	default:
		return nil
	}
	return &f
}

// unitFolders are where systemd looks, the most important first.
func unitFolders() []string {
	return []string{"etc/systemd/system", "run/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"}
}

const unitName = "unionbridge.service"

// checkUnit reads the unit and its drop-ins.
func checkUnit(_ context.Context, e *exam) (found []finding) {
	var unit []byte
	path := ""
	for _, folder := range unitFolders() {
		name := filepath.Join(e.Root, folder, unitName)
		if text, err := os.ReadFile(name); err == nil && path == "" {
			unit, path = text, name
		}
	}
	if path == "" {
		return []finding{skip("there is no %s", unitName)}
	}
	if !bytes.Equal(bytes.TrimSpace(unit), bytes.TrimSpace(e.Unit)) {
		found = append(found, bad(Warn, path+" is not the unit of this version", "oldunit", path))
	}
	all := string(unit)
	for _, folder := range unitFolders() {
		drops, _ := filepath.Glob(filepath.Join(e.Root, folder, unitName+".d", "*.conf"))
		for _, name := range drops {
			if text, err := os.ReadFile(name); err == nil {
				all += "\n" + string(text)
			}
		}
	}
	for _, s := range e.Secrets {
		if s.Path != "" && !loads(all, s.Name) {
			if f := credential(s); f != nil {
				found = append(found, *f)
			}
		}
	}
	if found == nil {
		return []finding{ok("%s hands over every secret", path)}
	}
	return found
}

// loads reports whether a unit has a LoadCredential of this name.
func loads(unit, name string) bool {
	return regexp.MustCompile(`(?m)^\s*(?:LoadCredential|SetCredential|LoadCredentialEncrypted)=` +
		regexp.QuoteMeta(name) + `(?::|$)`).MatchString(unit)
}

// credential says what is missing where the daemon's user cannot read a secret's file itself.
func credential(s Secret) *finding {
	info, err := os.Stat(s.Path)
	if err != nil || info.Mode().Perm()&0o044 != 0 {
		return nil // its group, or everybody, may read it
	}
	f := bad(Fail, fmt.Sprintf("%s: %s has no LoadCredential", s.Key, s.Name), "credential", s.Name, s.Path)
	if filepath.IsAbs(s.Name) {
		f = bad(Fail, fmt.Sprintf("%s: only its owner can read %s", s.Key, s.Name), "absolute",
			filepath.Base(s.Name), s.Path)
	}
	return &f
}

// spoolBytes is what a sweep writes for each follower, and minFree what it has at least.
const (
	spoolBytes = 30
	minFree    = 16 << 20
)

func checkUser(ctx context.Context, e *exam) (found []finding) {
	info, err := os.Stat(e.ConfigPath)
	// The daemon's user is no other than this one, unless this is root.
	if err == nil && os.Geteuid() == 0 && e.User != "" && !e.daemonMayRead(info) {
		found = append(found, bad(Fail, fmt.Sprintf("%s: the user %s may not read it (mode %04o)",
			e.ConfigPath, e.User, info.Mode().Perm()), "readable", e.ConfigPath))
	}
	dir := e.StateDir
	if _, err := os.Stat(dir); err != nil { // the daemon makes it
		dir = filepath.Dir(dir)
	}
	if err := syscall.Access(dir+"/.", 2); err != nil { // a file is no folder
		found = append(found, bad(Fail, fmt.Sprintf("state_dir: %s cannot be written: %v", e.StateDir, err),
			"statedir", e.StateDir))
	} else if free, known := freeBytes(dir); known {
		if need := max(minFree, spoolBytes*e.followers(ctx)); free < need {
			found = append(found, bad(Fail, fmt.Sprintf("state_dir: %d MiB are free in %s, a sweep may need %d",
				free>>20, e.StateDir, need>>20), "full", e.StateDir))
		}
	}
	if found == nil {
		return []finding{ok("the configuration can be read, %s can be written", e.StateDir)}
	}
	return found
}

// daemonMayRead goes by the file's mode; of a user that does not exist, everybody must be allowed.
func (e *exam) daemonMayRead(info fs.FileInfo) bool {
	if info.Mode().Perm()&0o004 != 0 {
		return true
	}
	owner, known := info.Sys().(*syscall.Stat_t)
	if !known {
		return true
	}
	uid, gid, exists := lookupUser(e.Root, e.User)
	return exists && (owner.Uid == uid && info.Mode().Perm()&0o400 != 0 ||
		owner.Gid == gid && info.Mode().Perm()&0o040 != 0)
}

// lookupUser reads /etc/passwd of the root that is looked at.
func lookupUser(root, name string) (uid, gid uint32, exists bool) {
	text, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
	if err != nil {
		return 0, 0, false
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(line, ":")
		if len(fields) > 3 && fields[0] == name {
			_, err := fmt.Sscan(fields[2]+" "+fields[3], &uid, &gid)
			return uid, gid, err == nil
		}
	}
	return 0, 0, false
}

func freeBytes(dir string) (free int64, known bool) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, false
	}
	return int64(s.Bavail) * s.Bsize, true
}
