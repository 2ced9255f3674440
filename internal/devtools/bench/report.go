package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/unionbridge/unionbridge/internal/devtools/harness"
)

// target is what a figure has to reach, such as <=48; "-": nothing.
type target string

func (t target) parts() (relation string, value float64) {
	relation = strings.TrimRight(string(t), "0123456789.")
	value, _ = strconv.ParseFloat(string(t[len(relation):]), 64) // 0 for "-"
	return relation, value
}

func (t target) verdict(v float64) string {
	relation, goal := t.parts()
	if relation == ">=" && v < goal || relation == "<=" && v > goal || relation == "=" && v != goal {
		return "short"
	}
	return "ok"
}

func (b *bench) record(name string, value float64) { b.values[name] = value }

// recordKnown notes a figure that is 0 where it cannot be known on this system, and is left out
// then.
func (b *bench) recordKnown(name string, value float64) {
	if value > 0 {
		b.record(name, value)
	}
}

func (b *bench) recordMemory(name string, bytes int64) { b.recordKnown(name, mebibytes(bytes)) }

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }

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

func forPeople(v float64) string {
	if math.Abs(v) >= 1000 {
		return harness.Count(int64(v))
	}
	return number(v)
}

func median(values []float64) float64 {
	return slices.Sorted(slices.Values(values))[len(values)/2]
}

func (b *bench) report() {
	if len(b.values) == 0 {
		return
	}
	b.Heading("Figures")
	b.Line("  %s\n", b.machine())
	var lines []string
	for _, f := range b.figures() {
		value, ok := b.values[f.name]
		if !ok {
			continue
		}
		goal, verdict := "", f.target.verdict(value)
		if relation, v := f.target.parts(); relation != "-" {
			goal = fmt.Sprintf("%s %s  %s", relation, forPeople(v), verdict)
		}
		b.Line("  %-66s %12s %-12s %s", f.what, forPeople(value), f.unit, goal)
		lines = append(lines,
			fmt.Sprintf("%s %s %s %s %s", f.name, number(value), f.unit, f.target, verdict))
	}
	b.Line("")
	for _, line := range lines {
		b.Line("%s", line)
	}
}
