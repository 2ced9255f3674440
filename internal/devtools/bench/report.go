package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

// target is what a figure has to reach.
type target struct {
	relation string // ">=", "<=" or "="; empty: no target
	value    float64
}

func atLeast(v float64) target { return target{">=", v} }
func atMost(v float64) target  { return target{"<=", v} }
func exactly(v float64) target { return target{"=", v} }

func (t target) String() string {
	if t.relation == "" {
		return "-"
	}
	return t.relation + number(t.value)
}

func (t target) met(v float64) bool {
	switch t.relation {
	case ">=":
		return v >= t.value
	case "<=":
		return v <= t.value
	case "=":
		return v == t.value
	}
	return true
}

// figure is one measured value.
type figure struct {
	name   string // one word, for programs
	value  float64
	unit   string // one word
	target target
	what   string // for people
}

// addKnown adds a figure that is 0 where it cannot be known on this system, and is left out then.
func (b *bench) addKnown(f figure) {
	if f.value > 0 {
		b.add(f)
	}
}

func (f figure) verdict() string {
	if f.target.met(f.value) {
		return "ok"
	}
	return "short"
}

// line is the figure for programs.
func (f figure) line() string {
	return fmt.Sprintf("%s %s %s %s %s", f.name, number(f.value), f.unit, f.target, f.verdict())
}

// number has as many digits as a measurement deserves.
func number(v float64) string {
	digits := 2
	switch {
	case v == math.Trunc(v) || math.Abs(v) >= 100:
		digits = 0
	case math.Abs(v) >= 10:
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64)
}

// forPeople is number with its thousands apart.
func forPeople(v float64) string {
	if math.Abs(v) >= 1000 {
		return stage.Count(int64(v))
	}
	return number(v)
}

// median of an odd number of values.
func median(values []float64) float64 { return slices.Sorted(slices.Values(values))[len(values)/2] }

// report prints the table and the lines.
func report(screen *stage.Screen, machine string, figures []figure) {
	screen.Heading("Figures")
	screen.Line("  %s\n", machine)
	for _, f := range figures {
		goal := ""
		if f.target.relation != "" {
			goal = fmt.Sprintf("%s %s  %s", f.target.relation, forPeople(f.target.value), f.verdict())
		}
		screen.Line("  %-66s %12s %-12s %s", f.what, forPeople(f.value), f.unit, goal)
	}
	screen.Line("")
	for _, f := range figures {
		screen.Line("%s", f.line())
	}
}
