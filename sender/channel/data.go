package channel

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/unionbridge/unionbridge/internal/wechat/keyword"
)

// ParseData returns the keys and values of send_request.data, in the order of the keys. Producers
// may write {"thing1":"x"} or {"thing1":{"value":"x"}}, and numbers for strings.
func ParseData(text string) ([]keyword.Value, *Rejection) {
	values, ok := parsePlain(text)
	if !ok {
		var why *Rejection
		if values, why = parseAny(text); why != nil {
			return nil, why
		}
	}
	if len(values) == 0 {
		return nil, Reject(ReasonBadData,
			"data is empty: give a value for each keyword of the template")
	}
	return values, nil
}

// parseAny reads what encoding/json takes, and says what is wrong with the rest.
func parseAny(text string) ([]keyword.Value, *Rejection) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &fields); err != nil || fields == nil {
		return nil, Reject(ReasonBadData,
			`data must be a JSON object such as {"thing1":"text"}, not `+kindOf(text))
	}
	values := make([]keyword.Value, 0, len(fields))
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		value, ok := fieldValue(fields[key])
		if !ok {
			return nil, Reject(ReasonBadData, fmt.Sprintf(
				`data.%s must be a string, a number or {"value":"…"}, not %s`,
				Clip(key, 60), kindOf(string(fields[key]))))
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

// visible leaves out the control characters that package wechat does not write either, so that what
// is checked is what goes out.
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
