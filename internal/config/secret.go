package config

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

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
