package wechatsim

import (
	"fmt"
	"strconv"
	"strings"
)

// platformPerson is the sender of events that are not from the person whom they concern.
const platformPerson = 1<<39 + 1

// pushEvent is what differs between events: who, what, and the elements beyond the common ones.
type pushEvent struct {
	person   int
	platform bool // FromUserName is a platform account; the person stands in a field
	name     string
	fields   []field
	wrapper  string    // the element that holds the items
	items    [][]field // one List each
	numbers  bool      // in JSON numbers are numbers, and not texts
}

// field is an element that holds a text. Numbers stand without CDATA in XML.
type field struct {
	name, text string
	number     bool
}

// pushHead is what all events have.
type pushHead struct {
	to, from string
	at       int64
	hash     uint64 // decides what differs from push to push
}

func (e *pushEvent) render(head pushHead, format Format) string {
	common := []field{{name: "ToUserName", text: head.to}, {name: "FromUserName", text: head.from},
		{name: "CreateTime", text: strconv.FormatInt(head.at, 10), number: true},
		{name: "MsgType", text: "event"}, {name: "Event", text: e.name}}
	common = append(common, e.fields...)
	if format == FormatXML {
		return e.xml(common)
	}
	if format == FormatMixed {
		shapes := [...]Format{FormatArray, FormatObject, FormatList, FormatListArray}
		format = shapes[head.hash%uint64(len(shapes))]
	}
	return e.json(common, format, head.hash&(1<<20) != 0)
}

// xml has the line breaks of real pushes: one behind each element.
func (e *pushEvent) xml(fields []field) string {
	var b strings.Builder
	b.WriteString("<xml>")
	writeXML(&b, fields)
	if e.wrapper != "" {
		b.WriteString("<" + e.wrapper + ">\n")
		for _, item := range e.items {
			b.WriteString("<List>\n")
			writeXML(&b, item)
			b.WriteString("</List>\n")
		}
		b.WriteString("</" + e.wrapper + ">\n")
	}
	b.WriteString("</xml>")
	return b.String()
}

func writeXML(b *strings.Builder, fields []field) {
	for _, f := range fields {
		text := "<![CDATA[" + f.text + "]]>"
		if f.number {
			text = f.text
		}
		fmt.Fprintf(b, "<%s>%s</%s>\n", f.name, text, f.name)
	}
}

// json writes all numbers as texts, as most events have them; CreateTime comes either way.
func (e *pushEvent) json(fields []field, format Format, numberAsTime bool) string {
	b := []byte{'{'}
	for i, f := range fields {
		if i > 0 {
			b = append(b, ',')
		}
		b = f.json(b, e.numbers || numberAsTime && f.name == "CreateTime")
	}
	if e.wrapper != "" {
		b = append(b, ',')
		b = e.list(b, format)
	}
	return string(append(b, '}'))
}

func (e *pushEvent) list(b []byte, format Format) []byte {
	items := e.array()
	if len(e.items) == 1 && (format == FormatObject || format == FormatList) {
		items = object(e.items[0])
	}
	switch format {
	case FormatArray:
		return append(append(b, `"`+e.wrapper+`":`...), items...)
	case FormatObject:
		b = append(append(b, `"`+e.wrapper+`":{"List":`...), items...)
		return append(b, '}')
	}
	return append(append(b, `"List":`...), items...)
}

func (e *pushEvent) array() []byte {
	b := []byte{'['}
	for i, item := range e.items {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, object(item)...)
	}
	return append(b, ']')
}

func object(fields []field) []byte {
	b := []byte{'{'}
	for i, f := range fields {
		if i > 0 {
			b = append(b, ',')
		}
		b = f.json(b, false)
	}
	return append(b, '}')
}

func (f field) json(b []byte, asNumber bool) []byte {
	b = append(appendString(b, f.name), ':')
	if f.number && asNumber {
		return append(b, f.text...)
	}
	return appendString(b, f.text)
}
