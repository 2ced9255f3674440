//go:build unix && !linux

package privatedb

import "syscall"

// attributes: a process group of its own, so that a terminal's Ctrl-C reaches the programs that use
// the server first. These systems cannot tie a child's life to its parent's: after a kill -9 of the
// parent the server stays and has to be stopped by hand.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
