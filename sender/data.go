package sender

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechat/keyword"
)

// maxData is the longest data in bytes. A template has at most a few dozen keywords of at most 32
// characters; longer data is a mistake, and 500 of them at a time would not fit into memory.
const maxData = 16 << 10

// readData returns the keys and values of a row's data in the order of the keys. Producers may write {"thing1":"x"} or
// {"thing1":{"value":"x"}}, and numbers for strings.
func readData(row request) ([]keyword.Value, *rejection) {
	if !row.Data.Valid {
		return nil, &rejection{reasonBadData, fmt.Sprintf("data has %d bytes, at most %d are allowed", row.DataBytes, maxData)}
	}
	values, ok := readPlain(row.Data.String)
	if !ok {
		var rejected *rejection
		if values, rejected = readAny(row.Data.String); rejected != nil {
			return nil, rejected
		}
	}
	if len(values) == 0 {
		return nil, &rejection{reasonBadData, "data is empty: give a value for each keyword of the template"}
	}
	return values, nil
}

// readAny reads what encoding/json takes, and says what is wrong with the rest.
func readAny(text string) ([]keyword.Value, *rejection) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &fields); err != nil || fields == nil {
		return nil, &rejection{reasonBadData, `data must be a JSON object such as {"thing1":"text"}, not ` + kindOf(text)}
	}
	values := make([]keyword.Value, 0, len(fields))
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		value, ok := fieldValue(fields[key])
		if !ok {
			return nil, &rejection{reasonBadData, fmt.Sprintf(
				`data.%s must be a string, a number or {"value":"…"}, not %s`, clip(key, 60), kindOf(string(fields[key])))}
		}
		values = append(values, keyword.Value{Key: key, Value: visible(value)})
	}
	return values, nil
}

// fieldValue reads "x", 12.50 or {"value": "x"}; a number keeps its digits as they were written.
func fieldValue(raw json.RawMessage) (string, bool) {
	var object struct {
		Value *json.RawMessage `json:"value"`
	}
	if raw[0] == '{' {
		if json.Unmarshal(raw, &object) != nil || object.Value == nil {
			return "", false
		}
		raw = bytes.TrimSpace(*object.Value)
	}
	var text string
	if json.Unmarshal(raw, &text) == nil && raw[0] == '"' {
		return text, true
	}
	var number json.Number
	if json.Unmarshal(raw, &number) == nil && number != "" {
		return number.String(), true
	}
	return "", false
}

// visible leaves out the control characters that wechat.AppendString does not write either, so that what is checked is what
// goes out.
func visible(value string) string {
	dropped := func(r rune) bool { return r < 0x20 && r != '\n' && r != '\r' && r != '\t' }
	if strings.IndexFunc(value, dropped) < 0 {
		return value
	}
	return strings.Map(func(r rune) rune {
		if dropped(r) {
			return -1
		}
		return r
	}, value)
}

// writeData returns the data that WeChat takes: {"thing1":{"value":"x"}}.
func writeData(values []keyword.Value) json.RawMessage {
	size := 2
	for _, v := range values {
		size += len(v.Key) + len(v.Value) + len(`"":{"value":""},`)
	}
	out := append(make([]byte, 0, size), '{')
	for i, v := range values {
		if i > 0 {
			out = append(out, ',')
		}
		// encoding/json would write some characters as \u escapes, which WeChat may refuse.
		out = append(wechat.AppendString(out, v.Key), `:{"value":`...)
		out = append(wechat.AppendString(out, v.Value), '}')
	}
	return append(out, '}')
}

func kindOf(text string) string {
	switch text = strings.TrimSpace(text); {
	case text == "null":
		return "null"
	case text == "true", text == "false":
		return "a boolean"
	case strings.HasPrefix(text, "["):
		return "an array"
	case strings.HasPrefix(text, `"`):
		return "a string"
	case strings.HasPrefix(text, "{"):
		return "an object"
	}
	return "a number"
}
