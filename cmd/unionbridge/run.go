package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

func (c *cli) runCommand() *cobra.Command {
	var migrate bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon: sync on schedule, send what apps insert",
		Long: `Run the daemon in the foreground until SIGTERM or SIGINT. It sweeps each official account's
follower list on its schedule, sends what apps insert into send_request, and serves
/healthz, /readyz and /metrics on http.listen. A database that is down is waited for.

At the first signal it takes no more work, finishes the messages that are on their way
(at most shutdown_timeout) and ends with 0. A second signal ends it at once: nothing is
lost, rows under way fall due again after a minute. SIGHUP changes nothing; restart the
daemon to apply a new configuration.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&migrate, "migrate", false,
		"apply missing migrations first; safe with several instances")
	cmd.RunE = c.work(func(cmd *cobra.Command, _ []string) error {
		cfg, err := c.loadConfig()
		if err != nil {
			return err
		}
		log := newLogger(cfg.Log, c.stderr)
		for _, warning := range cfg.Warnings {
			log.Warn("configuration: " + warning)
		}
		defer explainHangup(log)()
		tuneMemory()
		d := newDaemon(daemonConfig{cfg: cfg, log: log, migrate: migrate, notify: notifySystemd(log)})
		return d.run(cmd.Context())
	})
	return cmd
}

const (
	// gcPercent lets the heap grow to four times what is in use before it is collected. Little is
	// in use, so by Go's default it is collected many times a second while messages are sent: a
	// fifth of the daemon's work.
	gcPercent = 300
	// gcLimit is the size in bytes beyond which it collects more often, whatever gcPercent says.
	gcLimit = 36 << 20
)

// tuneMemory leaves it to an operator who has set Go's own variables.
func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(gcLimit)
	}
}

// explainHangup answers SIGHUP, which by default would end the process, with a word in the log: for
// many daemons it means "read the configuration again". The returned function ends that.
func explainHangup(log *slog.Logger) (stop func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-hangups:
				log.Warn("SIGHUP changes nothing: the configuration is read at the start only, " +
					"restart to apply a new one")
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		signal.Stop(hangups)
		cancel()
		<-done
	}
}
