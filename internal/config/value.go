package config

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

// Duration is a time.Duration that the file writes with its unit: 30s, 5m, 72h, 1h30m.
type Duration time.Duration

// Std returns d as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String writes d as the file may.
func (d Duration) String() string { return time.Duration(d).String() }

// UnmarshalYAML reads a duration. A mistake goes to the list of problems that the decoding context
// carries, so that it is reported together with all others.
func (d *Duration) UnmarshalYAML(ctx context.Context, node ast.Node) error {
	text, ok := scalarText(node)
	if !ok {
		return &yaml.SyntaxError{Message: "this must be a duration such as 30s", Token: node.GetToken()}
	}
	parsed, err := parseDuration(text)
	if err != nil {
		return report(ctx, node, err)
	}
	*d = Duration(parsed)
	return nil
}

func parseDuration(text string) (time.Duration, error) {
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		return 0, fmt.Errorf("%s has no unit; write 30s for seconds, 30m for minutes", quote(text))
	}
	parsed, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf(`%s is not a duration; write a number and ms, s, m or h, such as `+
			`"30s" or "72h"`, quote(text))
	}
	return parsed, nil
}

// Percent is a share of a hundred, 0 to 100, that the file writes with its sign: 5%.
type Percent float64

// Fraction returns p as a share of one: 0.05 for 5%.
func (p Percent) Fraction() float64 { return float64(p) / 100 }

// String writes p as the file does.
func (p Percent) String() string { return strconv.FormatFloat(float64(p), 'f', -1, 64) + "%" }

// UnmarshalYAML reads a percentage; see [Duration.UnmarshalYAML] for its mistakes.
func (p *Percent) UnmarshalYAML(ctx context.Context, node ast.Node) error {
	text, ok := scalarText(node)
	if !ok {
		return &yaml.SyntaxError{Message: "this must be a percentage such as 5%", Token: node.GetToken()}
	}
	parsed, err := parsePercent(text)
	if err != nil {
		return report(ctx, node, err)
	}
	*p = parsed
	return nil
}

// parsePercent insists on the sign: 0.05 and 5 could each mean the other.
func parsePercent(text string) (Percent, error) {
	number, signed := strings.CutSuffix(strings.TrimSpace(text), "%")
	value, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	switch {
	case err != nil:
		return 0, fmt.Errorf(`%s is not a percentage; write it as "5%%"`, quote(text))
	case !signed:
		return 0, fmt.Errorf(`%s has no percent sign; write it as "5%%"`, quote(text))
	case !(value >= 0 && value <= 100): // this way round NaN is refused too
		return 0, fmt.Errorf("%s is not between 0%% and 100%%", quote(text))
	}
	return Percent(value), nil
}

// problemsKey is the context key under which decodeYAML passes the list of problems down: goccy's
// decoder stops at the first error a value returns, and an operator wants all of them.
type problemsKey struct{}

// report adds err to the context's problems at node's place; without a list err is returned.
func report(ctx context.Context, node ast.Node, err error) error {
	ps, ok := ctx.Value(problemsKey{}).(*problems)
	if !ok {
		return &yaml.SyntaxError{Message: err.Error(), Token: node.GetToken()}
	}
	ps.add(fieldPath(node.GetPath()), "%w", err)
	return nil
}

// redacted stands for a secret wherever one would be printed.
const redacted = "[redacted]"

// Secret is a value that fmt with any verb, slog, JSON, YAML and every other printer of text hides.
// Only [Secret.Reveal] gives it out. The zero Secret is not set.
type Secret struct {
	// A pointer, because fmt cannot call methods of a value in another struct's unexported field
	// and prints its memory; of a pointer there it prints the address.
	value *string
}

// NewSecret wraps value.
func NewSecret(value string) Secret { return Secret{value: &value} }

// Reveal returns the value itself, "" if the secret is not set. Do not print it.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsSet reports whether there is a value, even an empty one.
func (s Secret) IsSet() bool { return s.value != nil }

// Format prints "[redacted]" for every verb and flag.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String returns "[redacted]".
func (s Secret) String() string { return redacted }

// LogValue returns "[redacted]".
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "[redacted]", for JSON and YAML too.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// UnmarshalYAML takes the scalar as it is written. An AppSecret is 32 hexadecimal digits and may
// read as a number in YAML (12345678e0123… is a float): decoding by YAML's types would change it.
func (s *Secret) UnmarshalYAML(_ context.Context, node ast.Node) error {
	text, ok := scalarText(node)
	if !ok {
		return &yaml.SyntaxError{Message: "this must be text", Token: node.GetToken()}
	}
	s.value = &text
	return nil
}

// scalarText returns a scalar's text, without quotes; false for lists, mappings and null.
func scalarText(node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	default:
		return "", false
	}
}
