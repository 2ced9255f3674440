package config

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// checkText finds what YAML's own errors do not name: another encoding, and the full-width
// punctuation of a Chinese keyboard where the half-width one belongs. Values may hold it.
func checkText(data []byte, ps *problems) error {
	switch {
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}) || bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		return fmt.Errorf("%s: the file is UTF-16; save it as UTF-8", ps.name)
	case !utf8.Valid(data):
		return fmt.Errorf("%s: the file is not UTF-8 (GBK, perhaps); save it as UTF-8", ps.name)
	}
	const wide = "：，“”‘’＂｛［－—＃\u3000\u00a0"
	if !bytes.ContainsAny(data, wide) {
		return nil
	}
	keys := slices.Sorted(maps.Keys(fileKeys()))
	oneOf := func(keys []string) string { return `(?:` + strings.Join(keys, "|") + `)[ \t]*` }
	key := oneOf(keys)
	// A name is for people, and may begin with any sign.
	strict := oneOf(slices.DeleteFunc(keys, func(k string) bool { return k == "name" }))
	signs := []struct {
		found *regexp.Regexp // the sign is the last group
		cure  string
	}{
		{regexp.MustCompile(`^[ \t-]*([\x{3000}\x{a0}])`),
			"a wide blank in the indent; use blanks of the keyboard's English mode"},
		{regexp.MustCompile(`(?:^[ \t-]*|[{,，][ \t]*)` + key + `(：)`),
			"a full-width colon; write : and a blank"},
		{regexp.MustCompile(`^[ \t]*([－—])[ \t]*` + key + `[:：]`),
			"a full-width hyphen; write - and a blank"},
		{regexp.MustCompile(`^[ \t]*(＃)`), "a full-width number sign; write #"},
		{regexp.MustCompile(`^[ \t-]*` + strict + `:[ \t]*([“”‘’＂｛［])`),
			"a full-width quotation mark or bracket; write the half-width one"},
		{regexp.MustCompile(`[{,，][ \t]*` + key + `[:：][^，,]*(，)[ \t]*` + key + `[:：]`),
			"a full-width comma; write , and a blank"},
	}
	var errs []error
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		for _, s := range signs {
			if m := s.found.FindStringSubmatchIndex(line); m != nil {
				column := utf8.RuneCountInString(line[:m[len(m)-2]]) + 1
				errs = append(errs, fmt.Errorf("%s:%d:%d: %s", ps.name, number, column, s.cure))
				break
			}
		}
	}
	return errors.Join(errs...)
}
