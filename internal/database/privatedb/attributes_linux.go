package privatedb

import "syscall"

// attributes: the server gets SIGTERM when its parent dies, however it dies, and sits in a process
// group of its own, so that a terminal's Ctrl-C reaches the programs that use it first.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
}
