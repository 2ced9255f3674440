package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

// goTest runs packages' tests through one node. CI is set so that a test which does not find its server
// fails instead of being skipped.
func goTest(ctx context.Context, n *node, packages []string, screen *stage.Screen) error {
	lines := screen.Lines()
	defer func() { _ = lines.Close() }() // it only prints
	cmd := exec.CommandContext(ctx, "go", slices.Concat([]string{"test", "-count=1", "-timeout=4m"}, packages)...)
	cmd.Env = append(os.Environ(), "UNIONBRIDGE_TEST_DSN="+n.dsn(n.sql, ""), "CI=1")
	cmd.Stdout, cmd.Stderr = lines, lines
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		screen.Bad("some tests fail on the cluster")
		return fmt.Errorf("testing %s through %s: %w", strings.Join(packages, " "), n.name, err)
	}
	screen.Good("all pass")
	return nil
}
