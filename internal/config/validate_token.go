package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// The values of token.mode.
const (
	tokenStable  = "stable"
	tokenClassic = "classic"
	tokenURL     = "url"
	tokenCommand = "command"
)

// headerName is stricter than HTTP: nothing that anybody sends is refused, and what is no name,
// such as a value that slipped out of its place, is not repeated.
var headerName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]{0,39}$`)

// headerValue is printable ASCII; anything else would be refused when the first token is fetched.
var headerValue = regexp.MustCompile(`^[\x20-\x7e]*$`)

func validateToken(path string, t *Token, ps *problems) {
	switch t.Mode {
	case tokenStable, tokenClassic, tokenURL, tokenCommand:
	default:
		ps.add(path+".mode", "%s is not known; use stable (or leave it out), classic, url or "+
			"command", quote(t.Mode))
		return
	}
	if t.Mode == tokenURL {
		validateTokenURL(path, t, ps)
	} else {
		refuseKeys(ps, path, tokenURL, map[string]bool{
			"url": t.URL.IsSet(), "url_file": t.URLFile != "", "url_env": t.URLEnv != "",
			"header": len(t.Header) > 0,
		})
	}
	if t.Mode == tokenCommand {
		validateTokenCommand(path+".command", t.Command, ps)
	} else {
		refuseKeys(ps, path, tokenCommand, map[string]bool{"command": len(t.Command) > 0})
	}
}

// refuseKeys reports given keys of another mode: one of the two is a mistake.
func refuseKeys(ps *problems, path, mode string, given map[string]bool) {
	for key, is := range given {
		if is {
			ps.add(path+"."+key, "belongs to mode: %s; set that, or remove this line", mode)
		}
	}
}

func validateTokenURL(path string, t *Token, ps *problems) {
	if text := t.URL.Reveal(); text != "" { // else reported as missing or empty
		u, ok := parseURL(path+".url", text, ps)
		switch {
		case ok && u.User != nil:
			ps.add(path+".url", "must not hold a user; put it into header: {Authorization: "+
				"{value_file: …}}")
		case ok && u.Fragment != "":
			ps.add(path+".url", "holds a #, and what follows it is never sent; write %%23 if it "+
				"belongs to a value")
		}
	}
	for name, value := range t.Header {
		if strings.EqualFold(name, "Content-Length") || strings.EqualFold(name, "Accept-Encoding") {
			ps.add(path+".header."+name, "is set by the daemon itself; remove this line")
		}
		if headerName.MatchString(name) && !headerValue.MatchString(value.Value.Reveal()) {
			ps.add(path+".header."+name, "is not what a header line may hold: printable ASCII")
		}
	}
}

// validateTokenCommand checks the program now, and not when the first token is due.
func validateTokenCommand(path string, argv []string, ps *problems) {
	if len(argv) == 0 {
		ps.add(path, `missing; give the program and its arguments as a list, such as `+
			`["/usr/local/bin/wx-token", "--quiet"]`)
		return
	}
	for _, arg := range argv {
		if strings.ContainsRune(arg, 0) {
			ps.add(path, "an argument holds a zero byte")
			return
		}
	}
	program := argv[0]
	if !filepath.IsAbs(program) {
		ps.add(path, "must begin with an absolute path: no shell and no PATH looks the program up")
		return
	}
	info, err := os.Stat(program)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		ps.add(path, "the program does not exist; install it, or correct the path")
	case err != nil:
		ps.add(path, "the program cannot be looked at by this user; check the folders' permissions")
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		ps.add(path, "is not a program; chmod +x it, or name another file")
	}
}
