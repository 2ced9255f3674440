// Command wechatsim serves the WeChat simulator of internal/wechatsim: accounts, followers and
// faults by flags, all else at run time under /_sim/, as that package documents.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
