package stage

import "syscall"

// attributes: the child gets SIGTERM when its parent dies, however it dies, and sits in a process group
// of its own: a terminal's Ctrl-C reaches the stage alone, which then ends its children in order.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
}
