package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

type problems struct {
	name  string              // the file's, in front of every problem
	at    map[string]position // where each path of the file stands
	found []problem
}

// position counts lines and columns from 1; the zero position is "not in the file".
type position struct{ line, column int }

type problem struct {
	position
	path string
	err  error
}

// add records a problem of the value at path, such as official_accounts[1].sync.sweep. The message
// names the cure and never holds a secret.
func (ps *problems) add(path, format string, args ...any) {
	ps.found = append(ps.found, problem{ps.find(path), path, fmt.Errorf(format, args...)})
}

// find returns the place of path, or of the nearest parent, where what is missing belongs.
func (ps *problems) find(path string) position {
	for path != "" {
		if pos, ok := ps.at[path]; ok {
			return pos
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return position{}
}

func (ps *problems) err() error {
	slices.SortStableFunc(ps.found, func(a, b problem) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.column, b.column))
	})
	errs := make([]error, 0, len(ps.found))
	for _, p := range ps.found {
		place := ps.name
		if p.line > 0 {
			place = fmt.Sprintf("%s:%d:%d", ps.name, p.line, p.column)
		}
		if p.path != "" {
			place += ": " + p.path
		}
		errs = append(errs, fmt.Errorf("%s: %w", place, p.err))
	}
	return errors.Join(errs...)
}
