package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/term"
)

func (c *cli) healthcheckCommand() *cobra.Command {
	var timeout time.Duration
	var ready bool
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask the running daemon whether it is alive, for containers",
		Long: `Request /healthz of http.listen, as a container's health check where there is no other program: exit
code 0 if the daemon answers, 1 if not. --ready requests /readyz: whether it can work. A database
that is down is no reason to restart a container, so use --ready for load balancers only.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 3*time.Second, "`duration` after which it has failed")
	cmd.Flags().BoolVar(&ready, "ready", false, "request /readyz")
	cmd.RunE = c.work(func(cmd *cobra.Command, _ []string) error {
		if err := c.loadConfig(); err != nil {
			return err
		}
		path := "/healthz"
		if ready {
			path = "/readyz"
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
		defer cancel()
		return exitWith(exitFailed, askDaemon(ctx, localURL(c.cfg.HTTP.Listen)+path))
	})
	return cmd
}

func exitWith(code int, err error) error {
	if err == nil {
		return nil
	}
	return exitError{code, err}
}

// localURL is how this machine reaches a listener, also one of every address.
func localURL(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		listen = net.JoinHostPort("127.0.0.1", port)
	}
	return "http://" + listen
}

func askDaemon(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("asking the daemon: %w", err)
	}
	// No proxy: it is this machine.
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return fmt.Errorf("asking the daemon: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("%s answers %d: %s", url, resp.StatusCode, oneLine(string(body)))
	}
	return nil
}

// What a password must have: bcrypt ignores what is behind 72 bytes.
const (
	minPassword = 12
	maxPassword = 72
)

func (c *cli) hashPasswordCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "hash-password",
		Short: "Make the hash of a password for the pages",
		Long: `Read a password, at the terminal without showing it, else as one line of standard input, and print its
bcrypt hash: the content of a password_hash_file. At least 12 characters, at most 72 bytes.`,
		Example: `  unionbridge hash-password > /etc/unionbridge/ops.hash`,
		Args:    cobra.NoArgs,
		RunE: c.work(func(*cobra.Command, []string) error {
			password, err := c.readPassword()
			if err != nil {
				return err
			}
			hash, err := bcrypt.GenerateFromPassword(password, bcrypt.DefaultCost)
			if err != nil {
				return fmt.Errorf("hashing the password: %w", err)
			}
			return printLine(c.stdout, string(hash))
		}),
	}
}

func (c *cli) readPassword() (password []byte, err error) {
	if f, ok := c.stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		_, _ = fmt.Fprint(c.stderr, "password: ")
		password, err = term.ReadPassword(int(f.Fd()))
		_, _ = fmt.Fprintln(c.stderr)
	} else {
		var line string
		line, err = bufio.NewReader(c.stdin).ReadString('\n')
		if errors.Is(err, io.EOF) {
			err = nil
		}
		password = []byte(strings.TrimRight(line, "\r\n"))
	}
	switch n := utf8.RuneCount(password); {
	case err != nil:
		return nil, fmt.Errorf("reading the password: %w", err)
	case n < minPassword:
		return nil, usageError("the password has %d characters, at least %d are needed", n, minPassword)
	case len(password) > maxPassword:
		return nil, usageError("the password has %d bytes, at most %d count", len(password), maxPassword)
	}
	return password, nil
}
