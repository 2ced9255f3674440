package channel

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

var templateIDPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// Templates are the configured aliases: alias → appid → template id.
type Templates map[string]map[string]string

// Known returns the id of the template that a row of an account names, or "".
func (t Templates) Known(name, appid string) string {
	id, _ := t.ID(name, appid)
	return id
}

// ID returns the id of the template that a row of an account names by an alias or by the id itself.
func (t Templates) ID(name, appid string) (string, *Rejection) {
	ids, isAlias := t[name]
	switch {
	case !isAlias && templateIDPattern.MatchString(name):
		return name, nil
	case !isAlias:
		known := strings.Join(slices.Sorted(maps.Keys(t)), ", ")
		if known == "" {
			known = "none is configured"
		}
		return "", Reject(ReasonUnknownTemplate, fmt.Sprintf(
			"template %q is neither an alias of the configuration (%s) nor a template id of 43 characters",
			Clip(name, 60), Clip(known, 300)))
	case ids[appid] == "":
		return "", Reject(ReasonUnknownTemplate, fmt.Sprintf(
			"template %q has no template id for the official account %s in the configuration",
			name, appid))
	}
	return ids[appid], nil
}
