package main

import (
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestCLIPage compares docs/cli.md with the program: its commands, the flags of each section, and
// the exit codes. The Chinese page has the same commands and exit codes.
func TestCLIPage(t *testing.T) {
	c := &cli{stdout: io.Discard, stderr: io.Discard}
	flags := map[string][]string{} // by the section, which is the command below the root
	var commands []string
	collectCommands(c.rootCommand(), &commands, flags)
	var codes []string
	for _, word := range exitMeanings() {
		codes = append(codes, strconv.Itoa(word.code))
	}

	english, chinese := readPage(t, "cli.md"), readPage(t, "cli.zh-CN.md")
	for _, page := range []string{english, chinese} {
		for _, command := range commands {
			if !strings.Contains(page, "`unionbridge "+command) &&
				!strings.Contains(page, "`"+command) &&
				!strings.Contains(page, "`"+lastWord(command)+"`") {
				t.Errorf("the page lacks the command %q:\n%.40s", command, page)
			}
		}
		var got []string
		for _, m := range regexp.MustCompile(`(?m)^\| (\d+) \|`).FindAllStringSubmatch(page, -1) {
			got = append(got, m[1])
		}
		if diff := cmp.Diff(codes, got); diff != "" {
			t.Errorf("exit codes (-code +page):\n%s", diff)
		}
	}

	got := map[string][]string{}
	_, sections, _ := strings.Cut(english, "\n## Flags\n")
	sections, _, _ = strings.Cut(sections, "\n## ")
	for _, section := range strings.Split(sections, "\n### ")[1:] {
		name, text, _ := strings.Cut(section, "\n")
		for _, m := range regexp.MustCompile("`--([a-z-]+)").FindAllStringSubmatch(text, -1) {
			if !slices.Contains(got[name], m[1]) {
				got[name] = append(got[name], m[1])
			}
		}
		slices.Sort(got[name])
	}
	if diff := cmp.Diff(flags, got); diff != "" {
		t.Errorf("flags of docs/cli.md (-code +page):\n%s", diff)
	}
}

// collectCommands appends the commands below cmd that do something, and the flags of each by its
// section: the commands of requests share one, each other command has its own.
func collectCommands(cmd *cobra.Command, commands *[]string, flags map[string][]string) {
	for _, child := range cmd.Commands() {
		if child.Hidden || child.IsAdditionalHelpTopicCommand() || child.Name() == "help" {
			continue
		}
		if child.HasSubCommands() {
			collectCommands(child, commands, flags)
			continue
		}
		name := strings.TrimPrefix(child.CommandPath(), "unionbridge ")
		*commands = append(*commands, name)
		section := strings.TrimSuffix(name, " "+child.Name())
		if section != "requests" {
			section = name
		}
		child.Flags().VisitAll(func(flag *pflag.Flag) {
			if flag.Name != "help" && !slices.Contains(flags[section], flag.Name) {
				flags[section] = append(flags[section], flag.Name)
			}
		})
		slices.Sort(flags[section])
		if len(flags[section]) == 0 {
			delete(flags, section)
		}
	}
}

func lastWord(command string) string { return command[strings.LastIndex(command, " ")+1:] }

func readPage(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
