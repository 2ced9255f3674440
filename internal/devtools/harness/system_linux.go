package harness

import "syscall"

// attributes: the child gets SIGTERM when its parent dies, however it dies, and has a process group
// of its own: a terminal's Ctrl-C reaches the harness alone, which then ends its children in order.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
}

// FreeDisk returns the bytes that this process may still write to a path's file system.
func FreeDisk(path string) (free int64, ok bool) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(path, &fs); err != nil {
		return 0, false
	}
	return int64(fs.Bavail) * fs.Bsize, true //nolint:gosec // no file system has 2^63 blocks
}
