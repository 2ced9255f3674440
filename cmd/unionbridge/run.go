package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	gosync "sync"
	"syscall"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
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
		if err := c.loadConfig(); err != nil {
			return err
		}
		c.logs = true
		log := newLogger(c.cfg.Log, c.stderr)
		for _, warning := range c.cfg.Warnings {
			log.Warn("configuration: " + warning)
		}
		defer explainHangup(log)()
		tuneMemory()
		return newDaemon(c.cfg, log, migrate, notifySystemd(log)).run(cmd.Context())
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
	var answering gosync.WaitGroup
	answering.Go(func() {
		for range hangups {
			log.Warn("SIGHUP changes nothing: the configuration is read at the start only, " +
				"restart to apply a new one")
		}
	})
	return func() {
		signal.Stop(hangups) // after it nothing writes to the channel
		close(hangups)
		answering.Wait()
	}
}

// notifier reports the daemon's state to systemd (Type=notify). Without systemd it does nothing.
type notifier struct {
	send     func(state string)
	interval time.Duration // half of WatchdogSec; 0: no watchdog
	log      *slog.Logger
}

// notifySystemd reads what systemd asks for from the environment. Both variables stay set for
// nobody: the daemon starts no children.
func notifySystemd(log *slog.Logger) notifier {
	timeout, err := systemd.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("reading the watchdog's interval from systemd", "err", err)
	}
	return notifier{interval: timeout / 2, log: log, send: func(state string) {
		if _, err := systemd.SdNotify(false, state); err != nil {
			log.Warn("notifying systemd", "err", err)
		}
	}}
}

func (n notifier) status(text string) { n.send("STATUS=" + text) }
func (n notifier) stopping()          { n.send(systemd.SdNotifyStopping) }
func (n notifier) ready(text string)  { n.send(systemd.SdNotifyReady + "\nSTATUS=" + text) }

// watchdog reports life twice per timeout while alive says so. A database or a WeChat that is away
// is no reason to fall silent: a restart would fix neither, and would cut off what is under way.
func (n notifier) watchdog(ctx context.Context, alive func(context.Context) error) {
	if n.interval <= 0 {
		return
	}
	tick := time.NewTicker(n.interval)
	defer tick.Stop()
	for {
		check, cancel := context.WithTimeout(ctx, n.interval)
		err := alive(check)
		cancel()
		if err == nil {
			n.send(systemd.SdNotifyWatchdog)
		} else if ctx.Err() == nil {
			n.log.Error("not reporting life to systemd's watchdog", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
