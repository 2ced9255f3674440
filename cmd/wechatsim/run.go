package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// The exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

const stopTimeout = 5 * time.Second

// run serves until ctx ends. The first line on stdout is the base URL, printed once connections are
// accepted: a script that reads it needs no retries. The lines after it name the accounts.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags, err := parseFlags(args, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "wechatsim: %v (see wechatsim -help)\n", err)
		return exitUsage
	}
	options := flags.options()
	options.Logger = slog.New(slog.NewTextHandler(stderr, nil))
	if err := serve(ctx, flags.listen, options, stdout); err != nil {
		fmt.Fprintf(stderr, "wechatsim: %v\n", err)
		return exitError
	}
	return exitOK
}

func serve(ctx context.Context, address string, options wechatsim.Options, stdout io.Writer) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	sim := wechatsim.New(options)
	defer sim.Close()
	web := &http.Server{Handler: sim, ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: slog.NewLogLogger(options.Logger.Handler(), slog.LevelWarn)}
	served := make(chan error, 1)
	go func() { served <- web.Serve(listener) }()
	printAccounts(stdout, "http://"+listener.Addr().String(), options)
	select {
	case err := <-served:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := web.Shutdown(stopping); err != nil {
		_ = web.Close() // a slow answer is no reason to stay
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}

func printAccounts(stdout io.Writer, base string, options wechatsim.Options) {
	fmt.Fprintln(stdout, base)
	for _, account := range options.Accounts {
		fmt.Fprintf(stdout, "official account %s, secret %s, %d followers\n", account.AppID,
			account.Secret, account.Followers)
	}
	for _, mini := range options.Minis {
		fmt.Fprintf(stdout, "mini program %s, secret %s, %d users\n", mini.AppID, mini.Secret,
			mini.Users)
	}
}
