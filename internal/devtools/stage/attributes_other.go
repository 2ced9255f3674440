//go:build unix && !linux

package stage

import "syscall"

// attributes: a process group of its own: a terminal's Ctrl-C reaches the stage alone, which then ends
// its children in order. These systems cannot tie a child's life to its parent's.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
