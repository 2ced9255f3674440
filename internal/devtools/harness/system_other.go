//go:build unix && !linux

package harness

import "syscall"

// attributes: a process group of its own: a terminal's Ctrl-C reaches the harness alone, which then
// ends its children in order. These systems cannot tie a child's life to its parent's.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// FreeDisk is known on Linux only.
func FreeDisk(string) (free int64, ok bool) { return 0, false }
