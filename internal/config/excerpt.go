package config

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

// excerptLines is how many lines an excerpt shows before and after the one in question.
const excerptLines = 2

// yamlError rewrites an error of the YAML library: place first, words for people, and an excerpt of
// the source. The library's own excerpt and messages quote whatever stands near, and a slip of one
// character (a lost quote, a tab) is likeliest where someone has just pasted a secret.
func yamlError(data []byte, name string, err error) error {
	located, ok := errors.AsType[yaml.Error](err)
	if !ok || located.GetToken() == nil {
		return fmt.Errorf("%s: %s", name, maskMessage(err.Error()))
	}
	at := located.GetToken().Position
	return fmt.Errorf("%s:%d:%d: %s\n%s", name, at.Line, at.Column, message(located),
		excerpt(string(data), position{at.Line, at.Column}))
}

func message(err yaml.Error) string {
	if mismatch, ok := errors.AsType[*yaml.TypeError](err); ok {
		return "this must be " + kindName(mismatch.DstType.Kind())
	}
	if _, ok := errors.AsType[*yaml.OverflowError](err); ok {
		return "this number is too large or must not be negative"
	}
	shape, ok := errors.AsType[*yaml.UnexpectedNodeTypeError](err)
	switch {
	case ok && shape.Expected == ast.SequenceType:
		return "this must be " + kindName(reflect.Slice)
	case ok && shape.Expected == ast.MappingType:
		return "this must be " + kindName(reflect.Map)
	}
	return maskMessage(err.GetMessage())
}

func kindName(kind reflect.Kind) string {
	switch kind {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Slice:
		return "a list (lines that begin with a dash)"
	case reflect.Struct, reflect.Map:
		return "a mapping (key: value)"
	default:
		return "text"
	}
}

var quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

// maskMessage hides what a message quotes, save the keys that we know.
func maskMessage(text string) string {
	keys := fileKeys()
	return quoted.ReplaceAllStringFunc(text, func(q string) string {
		if _, known := keys[strings.Trim(q, `"`)]; known {
			return q
		}
		return `"` + redacted + `"`
	})
}

// excerpt shows the lines around at with a mark below the place. Only what is known to be harmless
// is shown, the rest is masked: keys of ours that hold no secret, with their values.
func excerpt(source string, at position) string {
	keys := fileKeys()
	lines := strings.Split(strings.TrimRight(strings.ReplaceAll(source, "\r\n", "\n"), "\n"), "\n")
	var b strings.Builder
	// A secret may go on over lines that follow, indented deeper or, by a slip, not: until a line
	// that is no deeper than the secret's key and begins with a key of ours.
	hidden := -1 // the indent of the secret's key; -1: not in a secret
	for i, line := range lines[:min(len(lines), at.line+excerptLines)] {
		indent := len(line) - len(strings.TrimLeft(line, " \t"))
		if indent <= hidden && startsWithKey(line, keys) {
			hidden = -1
		}
		m := masker{keys: keys, rest: line}
		m.run(hidden >= 0)
		if hidden < 0 && m.secret {
			hidden = indent
		}
		if number := i + 1; number >= at.line-excerptLines {
			writeLine(&b, number, m.shown.String(), at)
		}
	}
	return strings.TrimRight(b.String(), "\n")
}

func writeLine(b *strings.Builder, number int, text string, at position) {
	mark := " "
	if number == at.line {
		mark = ">"
	}
	fmt.Fprintf(b, "%s %4d | %s\n", mark, number, text)
	if number == at.line {
		fmt.Fprintf(b, "       | %s^\n", strings.Repeat(" ", max(0, at.column-1)))
	}
}
