package push

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
)

// node is an element of XML or a member of JSON. WeChat pushes the same content in both, and the
// same list in several shapes: repeated elements and the items of an array are alike here.
type node struct {
	text     string
	children []namedNode
}

type namedNode struct {
	name string
	node *node
}

// all returns the children of a name, in their order.
func (n *node) all(name string) []*node {
	var found []*node
	for _, c := range n.children {
		if c.name == name {
			found = append(found, c.node)
		}
	}
	return found
}

// get is the text of the first of the names that has one, without the blanks around it; "": none
// has. Of repeated children the last one counts.
func (n *node) get(names ...string) string {
	for _, name := range names {
		for _, c := range slices.Backward(n.children) {
			if text := strings.TrimSpace(c.node.text); c.name == name && text != "" {
				return text
			}
		}
	}
	return ""
}

// maxDepth bounds the recursion; WeChat's pushes are five deep.
const maxDepth = 100

var errNoContent = errors.New("neither XML nor a JSON object")

// parse reads XML, or a JSON object, whichever it is.
func parse(body []byte) (*node, error) {
	body = bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\ufeff"))) // a byte order mark
	if bytes.HasPrefix(body, []byte("{")) {
		return parseJSON(body)
	}
	body = cleanXML(body)
	root, err := parseXML(body)
	if err != nil {
		root, err = parseXML(blankBeforeName.ReplaceAll(body, []byte("<$1$2")))
	}
	return root, err
}

// blankBeforeName is WeChat's own mistake: the example of user_authorization_revoke has < OpenPID>,
// which no XML parser takes.
var blankBeforeName = regexp.MustCompile(`<[ \t]*(/?)[ \t]+([A-Za-z_])`)

// cleanXML takes out what XML does not allow and WeChat sends nevertheless, such as U+0002 in what
// people write; for encoding/xml one such character makes the whole push unreadable.
func cleanXML(body []byte) []byte {
	return bytes.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n' || r == '\r':
			return r
		case r < ' ' || r == 0xFFFE || r == 0xFFFF:
			return -1
		}
		return r // invalid UTF-8 comes as U+FFFD, which is allowed
	}, body)
}

// parseXML reads the first element; like encoding/xml's Unmarshal it ignores what follows.
func parseXML(body []byte) (*node, error) {
	d := xml.NewDecoder(bytes.NewReader(body))
	for {
		token, err := d.Token()
		if err != nil {
			return nil, errNoContent
		}
		if _, ok := token.(xml.StartElement); ok {
			return readElement(d, 0)
		}
	}
}

// readElement reads to the end of the element whose start has been read.
func readElement(d *xml.Decoder, depth int) (*node, error) {
	if depth > maxDepth {
		return &node{}, d.Skip()
	}
	n := &node{}
	var text strings.Builder
	for {
		token, err := d.Token()
		if err != nil {
			return nil, errNoContent
		}
		switch t := token.(type) {
		case xml.StartElement:
			child, err := readElement(d, depth+1)
			if err != nil {
				return nil, err
			}
			n.children = append(n.children, namedNode{t.Name.Local, child})
		case xml.CharData:
			text.Write(t)
		case xml.EndElement:
			n.text = text.String()
			return n, nil
		}
	}
}

// parseJSON reads an object. Numbers keep their digits: a MsgID exceeds 2^53. Control characters,
// which JSON does not allow in strings and does not need between them, are left out.
func parseJSON(body []byte) (*node, error) {
	body = bytes.Map(func(r rune) rune {
		if r < ' ' {
			return -1
		}
		return r
	}, body)
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var object map[string]any
	if err := d.Decode(&object); err != nil {
		return nil, errNoContent
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errNoContent // something follows
	}
	return fromJSON(object, 0), nil
}

func fromJSON(value any, depth int) *node {
	n := &node{}
	switch v := value.(type) {
	case string:
		n.text = v
	case json.Number:
		n.text = v.String()
	case map[string]any:
		for name, member := range v {
			n.add(name, member, depth)
		}
	}
	return n
}

// add appends a member, or each item of an array. The order of different names says nothing.
func (n *node) add(name string, member any, depth int) {
	if depth > maxDepth {
		return
	}
	items, ok := member.([]any)
	if !ok {
		n.children = append(n.children, namedNode{name, fromJSON(member, depth+1)})
		return
	}
	for _, item := range items {
		n.add(name, item, depth+1)
	}
}
