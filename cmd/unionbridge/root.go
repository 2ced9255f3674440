package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unionbridge/unionbridge/internal/config"
)

const (
	// configVariable names the configuration file where -c does not.
	configVariable = "UNIONBRIDGE_CONFIG"
	defaultConfig  = "/etc/unionbridge/config.yaml"
)

type cli struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	configPath     string
	// begun is set when a command's own work begins. What fails before that is the command line.
	begun bool
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
	path := defaultConfig
	if fromEnv := os.Getenv(configVariable); fromEnv != "" {
		path = fromEnv
	}
	root.PersistentFlags().StringVarP(&c.configPath, "config", "c", path,
		"configuration `file`; its default is $"+configVariable+", else "+defaultConfig)
	root.PersistentFlags().Lookup("config").DefValue = "" // the sentence above says it better
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(c.runCommand(), c.syncCommand(), c.statusCommand(), c.lookupCommand(), c.sendCommand(),
		c.requestsCommand(), c.importUsersCommand(),
		c.exportUsersCommand(), c.migrateCommand(), c.configCommand(), c.versionCommand(), exitCodesTopic())
	return root
}

// work wraps a command's function: from here on an error is not the command line's.
func (c *cli) work(fn func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
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

// loadConfig reads the configuration. Its warnings are for run, which logs them, and config check.
func (c *cli) loadConfig() (*config.Config, error) {
	cfg, err := config.Load(c.configPath)
	if err != nil {
		return nil, exitError{exitConfig, err}
	}
	return cfg, nil
}

func officialAccounts(cfg *config.Config, appids []string) ([]config.OfficialAccount, error) {
	if len(appids) == 0 {
		return cfg.OfficialAccounts, nil
	}
	for _, appid := range appids {
		if !slices.ContainsFunc(cfg.OfficialAccounts,
			func(a config.OfficialAccount) bool { return a.AppID == appid }) {
			var known []string
			for _, a := range cfg.OfficialAccounts {
				known = append(known, a.AppID)
			}
			return nil, exitError{exitUsage,
				fmt.Errorf("official account %q is not in the configuration, which has %s",
					appid, strings.Join(known, ", "))}
		}
	}
	// In the configuration's order, and each once.
	chosen := slices.Clone(cfg.OfficialAccounts)
	return slices.DeleteFunc(chosen, func(a config.OfficialAccount) bool { return !slices.Contains(appids, a.AppID) }), nil
}

var errInterrupted = errors.New("interrupted")
