package harness

import (
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// Screen prints for people: colours and overwritten lines on a terminal only, and no colours where
// NO_COLOR is set (https://no-color.org).
type Screen struct {
	out      io.Writer
	Terminal bool
	colour   bool
	now      func() time.Time
	begin    time.Time
	step     int
	status   string // the status line in which the cursor stands; empty: in none
}

// NewScreen prints to out.
func NewScreen(out io.Writer, now func() time.Time) *Screen {
	s := &Screen{out: out, now: now, begin: now()}
	if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		s.Terminal = true
		s.colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	return s
}

func (s *Screen) paint(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// Elapsed is the time since NewScreen.
func (s *Screen) Elapsed() time.Duration { return s.now().Sub(s.begin) }

// printf writes to a terminal or a pipe; whoever closed it does not want to read.
func (s *Screen) printf(format string, args ...any) {
	if s.status != "" {
		_, _ = io.WriteString(s.out, "\r\x1b[K")
		s.status = ""
	}
	_, _ = fmt.Fprintf(s.out, format, args...)
}

// Title opens the output.
func (s *Screen) Title(text string) { s.printf("\n%s\n\n", s.paint("1", text)) }

// Step begins the next numbered step: "[  4.1 s]  3  text".
func (s *Screen) Step(format string, args ...any) {
	s.step++
	elapsed := s.paint("2", fmt.Sprintf("[%5.1f s]", s.Elapsed().Seconds()))
	number := s.paint("1;36", fmt.Sprintf("%2d", s.step))
	s.printf("%s %s  %s\n", elapsed, number, fmt.Sprintf(format, args...))
}

const indent = 14 // the width of what stands before a step's text

// Say adds a line to the step.
func (s *Screen) Say(format string, args ...any) {
	s.printf("%s%s\n", strings.Repeat(" ", indent), s.paint("2", fmt.Sprintf(format, args...)))
}

// Good adds a verdict to the step.
func (s *Screen) Good(format string, args ...any) { s.verdict("32", "ok", format, args) }

// Bad is Good's opposite.
func (s *Screen) Bad(format string, args ...any) { s.verdict("1;31", "WRONG", format, args) }

func (s *Screen) verdict(colour, word, format string, args []any) {
	s.printf("%*s%s %s\n", indent, "", s.paint(colour, word), fmt.Sprintf(format, args...))
}

// Status shows a line that the next one overwrites; nothing where the output is no terminal.
func (s *Screen) Status(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !s.Terminal || text == s.status {
		return
	}
	s.printf("%s%s", strings.Repeat(" ", indent), text)
	s.status = text
}

// Line prints a line at the left edge.
func (s *Screen) Line(format string, args ...any) { s.printf(format+"\n", args...) }

// Heading prints a bold line with an empty one before it.
func (s *Screen) Heading(text string) { s.printf("\n%s\n", s.paint("1", text)) }

// Fact prints a name and a value below a heading.
func (s *Screen) Fact(name, format string, args ...any) {
	s.printf("  %s %s\n", s.paint("2", fmt.Sprintf("%-28s", name)), fmt.Sprintf(format, args...))
}

// Lines returns a writer that prints what a program says line by line, as part of the step.
func (s *Screen) Lines() io.WriteCloser { return &lines{screen: s} }

type lines struct {
	screen *Screen
	rest   string
}

func (l *lines) Write(b []byte) (int, error) {
	said := strings.Split(l.rest+string(b), "\n")
	last := len(said) - 1
	for _, line := range said[:last] {
		l.screen.Say("%s", strings.TrimRight(line, "\r"))
	}
	l.rest = said[last]
	return len(b), nil
}

// Close prints a last line without an end.
func (l *lines) Close() error {
	if l.rest != "" {
		l.screen.Say("%s", l.rest)
		l.rest = ""
	}
	return nil
}

// Count writes a number for people: 1,000,000.
func Count[N int | int64](n N) string {
	if -1000 < n && n < 1000 {
		return fmt.Sprint(n)
	}
	return Count(n/1000) + fmt.Sprintf(",%03d", max(n%1000, -(n%1000)))
}

// Quantile is the q-quantile of sorted durations; 0 if there are none.
func Quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}
