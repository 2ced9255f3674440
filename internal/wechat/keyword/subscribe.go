package keyword

import (
	"slices"
	"strings"
)

// ParseSubscribe reads the placeholders of a mini program's subscribe template. enums are the
// values that WeChat lists for an enumeration, by key such as enum3; without them any value passes.
//
// https://developers.weixin.qq.com/miniprogram/dev/OpenApiDoc/mp-message-management/subscribe-message/sendMessage.html
func ParseSubscribe(content string, enums map[string][]string) *Set {
	s := parse(content)
	for i := range s.keys {
		s.keys[i].rule = subscribeRule(s.keys[i], enums)
	}
	return s // never legacy: subscribe templates are younger than the rules
}

// subscribeRule is ruleOf where a subscribe message's limits are the same.
func subscribeRule(k key, enums map[string][]string) *rule {
	switch k.kind {
	case "amount": // two digits fewer than in an official account's template
		return amountRule(10)
	case "name": // a mixed one counts as Chinese; an official account's page does not say that
		return &rule{fits: isSubscribeName,
			says: "at most 10 characters if one is Chinese, else at most 20 letters and symbols"}
	case "enum":
		return enumRule(enums[k.name])
	}
	return ruleOf(k.kind)
}

func isSubscribeName(value string) bool {
	if count(value, isHan) > 0 {
		return !longer(value, 10)
	}
	return !longer(value, 20)
}

// enumRule takes the listed values only.
func enumRule(listed []string) *rule {
	const shown = 10
	if len(listed) == 0 {
		return ruleOf("enum")
	}
	says := "one of its listed values: " + strings.Join(listed[:min(len(listed), shown)], ", ")
	if len(listed) > shown {
		says += ", …"
	}
	return &rule{fits: func(v string) bool { return slices.Contains(listed, v) }, says: says}
}
