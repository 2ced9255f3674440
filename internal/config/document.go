package config

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// decodeYAML decodes data over cfg's defaults. What prevents decoding is returned, with an excerpt;
// unknown keys and malformed durations go to ps and decoding goes on, so that they are reported
// together with what validation finds.
func decodeYAML(data []byte, cfg *Config, ps *problems) error {
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // some editors write it before UTF-8
	if err := checkText(data, ps); err != nil {
		return err
	}
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return yamlError(data, ps.name, err)
	}
	root, err := onlyDocument(file)
	if err != nil {
		return fmt.Errorf("%s: %w", ps.name, err)
	}
	ps.at = make(map[string]position)
	ps.walk(root, reflect.TypeFor[Config](), "")
	ctx := context.WithValue(context.Background(), problemsKey{}, ps)
	if err := yaml.NewDecoder(bytes.NewReader(nil)).DecodeFromNodeContext(ctx, root, cfg); err != nil {
		return yamlError(data, ps.name, err)
	}
	for i, a := range cfg.OfficialAccounts {
		if reflect.ValueOf(a).IsZero() { // a dash with nothing behind it is not unmarshalled
			cfg.OfficialAccounts[i] = defaultAccount()
		}
	}
	for i, m := range cfg.MiniPrograms {
		if reflect.ValueOf(m).IsZero() {
			cfg.MiniPrograms[i] = defaultMiniProgram()
		}
	}
	fillApplications(cfg.Applications)
	return nil
}

// onlyDocument returns the file's one document. A second one would be ignored without a word, and
// so would an empty file be a configuration of defaults.
func onlyDocument(file *ast.File) (ast.Node, error) {
	var bodies []ast.Node
	for _, doc := range file.Docs {
		if doc.Body != nil && doc.Body.Type() != ast.NullType && doc.Body.Type() != ast.CommentType {
			bodies = append(bodies, doc.Body)
		}
	}
	switch len(bodies) {
	case 0:
		return nil, errors.New(`the file is empty; "unionbridge config example" prints one to start from`)
	case 1:
		return bodies[0], nil
	default:
		return nil, fmt.Errorf("the file holds %d documents separated by ---; keep one", len(bodies))
	}
}

// walk goes over the file beside the types that it decodes into: it notes where each value stands
// and finds every key that no field takes. The decoder's own strict mode names one of them, and
// with two it is chance which.
func (ps *problems) walk(node ast.Node, typ reflect.Type, path string) {
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	switch n := node.(type) {
	case *ast.AnchorNode:
		ps.walk(n.Value, typ, path)
	case *ast.TagNode:
		ps.walk(n.Value, typ, path)
	case *ast.SequenceNode:
		if typ.Kind() == reflect.Slice {
			ps.walkList(n, typ.Elem(), path)
		}
	case ast.MapNode: // what an alias or a merge key brings in is checked where it is written
		ps.walkMapping(n, typ, path)
	}
}

func (ps *problems) walkList(list *ast.SequenceNode, elem reflect.Type, path string) {
	for i, value := range list.Values {
		at := fmt.Sprintf("%s[%d]", path, i)
		ps.note(at, value)
		ps.walk(value, elem, at)
	}
}

func (ps *problems) walkMapping(mapping ast.MapNode, typ reflect.Type, path string) {
	for iter := mapping.MapRange(); iter.Next(); {
		if iter.Key().IsMergeKey() {
			continue
		}
		key, ok := scalarText(iter.Key())
		if !ok {
			continue // the decoder refuses it
		}
		at := strings.TrimPrefix(path+"."+key, ".")
		elem, known := elemType(typ, key)
		if !known {
			ps.unknown(iter, typ, path)
			continue
		}
		ps.note(at, iter.Key())
		if _, ok := iter.Value().(*ast.FloatNode); ok && elem.Kind() == reflect.Int {
			// the decoder would cut it down to one
			ps.add(at, "this must be a whole number")
		}
		ps.walk(iter.Value(), elem, at)
	}
}

func (ps *problems) note(path string, node ast.Node) {
	token := node.GetToken()
	if m, ok := node.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		token = m.Values[0].Key.GetToken() // a block mapping's own token is its first colon
	}
	ps.at[path] = position{token.Position.Line, token.Position.Column}
}

// keyShape is what keys look like in this file. Anything else, or one without a value, may be a
// value that lost its own key to a slip, a secret perhaps, and is not repeated.
var keyShape = regexp.MustCompile(`^[a-z_]{1,24}$`)

func (ps *problems) unknown(pair *ast.MapNodeIter, typ reflect.Type, path string) {
	key, _ := scalarText(pair.Key())
	if !keyShape.MatchString(key) || pair.Value().Type() == ast.NullType {
		key = redacted
	}
	at := strings.TrimPrefix(path+"."+key, ".")
	ps.note(at, pair.Key())
	ps.add(at, "unknown key; known here: %s", strings.Join(fieldNames(typ), ", "))
}

// elemType returns the type of what key leads to in typ. Scalars have no keys: the decoder says so,
// and nothing below them is looked at.
func elemType(typ reflect.Type, key string) (reflect.Type, bool) {
	switch typ.Kind() {
	case reflect.Map:
		return typ.Elem(), true
	case reflect.Struct:
		for _, field := range reflect.VisibleFields(typ) {
			if yamlName(field) == key {
				return field.Type, true
			}
		}
		return typ, typ == reflect.TypeFor[Secret]()
	default:
		return typ, true
	}
}

func fieldNames(typ reflect.Type) []string {
	var names []string
	for _, field := range reflect.VisibleFields(typ) {
		if name := yamlName(field); name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func yamlName(field reflect.StructField) string {
	return strings.TrimPrefix(field.Tag.Get("yaml"), "-")
}

// fieldPath turns the decoder's way of writing a path, $.templates.'a.b'.official, into ours.
func fieldPath(path string) string {
	return strings.ReplaceAll(strings.TrimPrefix(path, "$."), "'", "")
}
