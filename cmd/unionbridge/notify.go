package main

import (
	"context"
	"log/slog"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
)

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
		if err := n.askOnce(ctx, alive); err == nil {
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

func (n notifier) askOnce(ctx context.Context, alive func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, n.interval)
	defer cancel()
	return alive(ctx)
}
