//go:build unix && !linux

package stage

// FreeDisk is known on Linux only.
func FreeDisk(string) (free int64, ok bool) { return 0, false }
