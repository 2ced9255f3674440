package dbtest

import (
	"time"
	"unsafe"
)

// Asleep returns a moment as a clock reads it on a machine that has been suspended for d: the wall
// clock has gone on, and the monotonic one has not. t must come from time.Now.
func Asleep(t time.Time, d time.Duration) time.Time {
	after := t.Add(d)
	// The second word of a Time that has a monotonic reading is that reading.
	*(*int64)(unsafe.Add(unsafe.Pointer(&after), unsafe.Sizeof(uint64(0)))) -= int64(d)
	if after.Sub(t) != 0 || after.Round(0).Sub(t.Round(0)) != d {
		panic("dbtest.Asleep: t has no monotonic reading, or package time has changed")
	}
	return after
}
