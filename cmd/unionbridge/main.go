// Command unionbridge keeps the map from unionids to openids in MySQL fresh, and turns rows that
// apps INSERT into delivered WeChat template messages.
//
// This package wires: it turns the configuration file into the packages' own settings, and their
// results into words and exit codes. Only main knows the process: signals, arguments, os.Exit.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/unionbridge/unionbridge/internal/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal restores the default: the second one ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit code. The end of ctx asks a command to stop.
//
//nolint:revive // argument-limit: this is all that a process has, and tests put in each of it
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &cli{stdin: stdin, stdout: stdout, stderr: stderr}
	root := c.rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	return c.report(ctx, cmd, err)
}

const (
	// configVariable names the configuration file where -c does not.
	configVariable = "UNIONBRIDGE_CONFIG"
	defaultConfig  = "/etc/unionbridge/config.yaml"
)

type cli struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	configPath     string
	cfg            *config.Config // nil until loadConfig
	// begun is set when a command's own work begins. What fails before that is the command line.
	begun bool
	// logs is set by commands whose standard error is a log: its last line is of its format too.
	logs bool
}

func (c *cli) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use: "unionbridge",
		Short: "Tie WeChat mini-program users to official-account followers, and send them " +
			"template messages",
		Long: `unionbridge keeps a map from unionid to openid in MySQL, always fresh, and turns the rows
that apps INSERT into send_request into delivered WeChat template messages.

"unionbridge run" is the daemon; everything else is for people and scripts.`,
		SilenceErrors: true, // report prints them
		SilenceUsage:  true,
	}
	path := cmp.Or(os.Getenv(configVariable), defaultConfig)
	root.PersistentFlags().StringVarP(&c.configPath, "config", "c", path,
		"configuration `file`; its default is $"+configVariable+", else "+defaultConfig)
	root.PersistentFlags().Lookup("config").DefValue = "" // the sentence above says it better
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(c.runCommand(), c.syncCommand(), c.statusCommand(), c.doctorCommand(), c.lookupCommand(),
		c.sendCommand(), c.requestsCommand(), c.pauseCommand(), c.resumeCommand(),
		c.grantsCommand(), c.applicationCommand(), c.importUsersCommand(), c.exportUsersCommand(),
		c.forgetCommand(), c.purgeCommand(), c.restoredCommand(), c.healthcheckCommand(),
		c.hashPasswordCommand(), c.migrateCommand(), c.configCommand(), c.versionCommand(), exitCodesTopic())
	return root
}

type action func(cmd *cobra.Command, args []string) error

// work wraps a command's function: from here on an error is not the command line's.
func (c *cli) work(fn action) action {
	return func(cmd *cobra.Command, args []string) error {
		c.begun = true
		return fn(cmd, args)
	}
}

// group makes a command that holds others. cobra's own succeeds for a misspelt one.
func group(cmd *cobra.Command, children ...*cobra.Command) *cobra.Command {
	cmd.AddCommand(children...)
	names := make([]string, len(children))
	for i, child := range children {
		names[i] = child.Name()
	}
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("which %s command? %s", cmd.Name(), strings.Join(names, " or "))
		}
		return fmt.Errorf("unknown command %q: %s knows %s", args[0], cmd.CommandPath(),
			strings.Join(names, " and "))
	}
	return cmd
}

// loadConfig reads the configuration once. run logs its warnings, config check prints them.
func (c *cli) loadConfig() (err error) {
	if c.cfg != nil {
		return nil
	}
	if c.cfg, err = config.Load(c.configPath); err != nil {
		return exitError{exitConfig, err}
	}
	return nil
}

func officialAccounts(cfg *config.Config, appids []string) ([]config.OfficialAccount, error) {
	if len(appids) == 0 {
		return cfg.OfficialAccounts, nil
	}
	var chosen []config.OfficialAccount // in the configuration's order, and each once
	var known []string
	for _, a := range cfg.OfficialAccounts {
		known = append(known, a.AppID)
		if slices.Contains(appids, a.AppID) {
			chosen = append(chosen, a)
		}
	}
	for _, appid := range appids {
		if !slices.Contains(known, appid) {
			return nil, usageError("official account %q is not in the configuration, which has %s",
				appid, strings.Join(known, ", "))
		}
	}
	return chosen, nil
}

var errInterrupted = errors.New("interrupted")
