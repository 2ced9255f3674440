package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/config"
)

func (c *cli) applicationCommand() *cobra.Command {
	return group(&cobra.Command{
		Use:   "application",
		Short: "Look after the programs that use the doors, and their secrets",
	}, c.applicationSecretCommand(), c.applicationListCommand(), c.applicationCheckCommand(),
		c.applicationRevokeCommand())
}

// newSecretOptions are the flags of application secret.
type newSecretOptions struct{ write, dropOlder, asJSON bool }

func (c *cli) applicationSecretCommand() *cobra.Command {
	var o newSecretOptions
	cmd := &cobra.Command{
		Use:   "secret NAME",
		Short: "Make a secret for an application, and its hash",
		Long: `Make a new secret for an application, and show it once: only its hash is kept. Hand the secret to
the program, which uses it as WeChat's AppSecret.

Without --write nothing is read or written: put the hash into the application's secret_hash_file or
secret_hashes. With it the hash becomes the first line of secret_hash_file, and the secret that was
valid before stays valid, so that programs can change over. Restart the daemons then. The older
secret ends with its line, and its tokens with it.`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&o.write, "write", false, "write the hash into the application's secret_hash_file")
	cmd.Flags().BoolVar(&o.dropOlder, "drop-older", false,
		"with --write: where the file has two hashes, end the older one")
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print an object")
	cmd.RunE = c.work(func(_ *cobra.Command, args []string) error { return c.newSecret(args[0], o) })
	return cmd
}

// newSecretLine is what application secret --json prints.
type newSecretLine struct {
	Application string  `json:"application"`
	Secret      string  `json:"secret"`
	Hash        string  `json:"hash"`
	File        *string `json:"file"`
}

func (c *cli) newSecret(name string, o newSecretOptions) error {
	if !config.IsApplicationName(name) {
		return usageError("%q is not an application's name: 1 to 64 of a-z, 0-9, underscore, dot and "+
			"hyphen, first a letter or digit", name)
	}
	if o.dropOlder && !o.write {
		return usageError("--drop-older belongs to --write")
	}
	secret := applications.NewSecret()
	hash := fmt.Sprintf("%x", applications.Hash(secret))
	file := ""
	if o.write {
		var err error
		if file, err = config.HashFile(c.configPath, name); err != nil {
			return exitError{exitConfig, err}
		}
		if err := addHash(file, hash, o.dropOlder); err != nil {
			return err
		}
	}
	if o.asJSON {
		return printJSON(c.stdout, newSecretLine{name, secret, hash, orNull(file)}, "")
	}
	if _, err := fmt.Fprintf(c.stdout, "secret: %s\nhash:   %s\n", secret, hash); err != nil {
		return err
	}
	advice := "The secret is not shown again. "
	if o.write {
		advice += "Its hash is in " + file + "; restart the daemons to make it valid."
	} else {
		advice += "Put the hash into the application's secret_hash_file or secret_hashes, and restart the " +
			"daemons."
	}
	_, err := fmt.Fprintln(c.stderr, visible(advice))
	return err
}

// addHash puts a hash in front of the one that the file has. A crash leaves the file as it was.
func addHash(file, hash string, dropOlder bool) error {
	data, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var kept []string // the lines, with their comments
	for line := range strings.Lines(string(data)) {
		if len(config.ParseHashes(line)) > 0 {
			kept = append(kept, strings.TrimRight(line, "\r\n"))
		}
	}
	if len(kept) > 1 && !dropOlder {
		return fmt.Errorf("%s has two hashes already. When no program uses the older secret any more, "+
			"delete its line, the last one, or add --drop-older", file)
	}
	lines := append([]string{hash + " made " + time.Now().UTC().Format(time.RFC3339)},
		kept[:min(1, len(kept))]...)
	// No secret: a hash of 128 random bits. Whoever runs this need not be the daemon's user.
	const mode = 0o644
	temporary, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temporary.Name()) }() // after the rename there is none
	_, err = temporary.WriteString(strings.Join(lines, "\n") + "\n")
	err = errors.Join(err, temporary.Chmod(mode), temporary.Sync(), temporary.Close())
	if err != nil {
		return err
	}
	return os.Rename(temporary.Name(), file)
}
