package main

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/unionbridge/unionbridge/bridge"
)

// TestOverlongLine: a line without an end costs its line and no memory, and the next one is read.
func TestOverlongLine(t *testing.T) {
	in := strings.NewReader("wx1,o1,u1\nwx1," + strings.Repeat("x", 3*maxUserLine) + "\nwx1,o2,u2")
	lines := newUserLines(in, []string{"wx1"})
	if u, err := lines.next(); err != nil ||
		u != (bridge.MiniUser{AppID: "wx1", OpenID: "o1", UnionID: "u1"}) {
		t.Errorf("line 1 is %+v, %v", u, err)
	}
	if _, err := lines.next(); err == nil || err.Error() != "line 2: longer than 65536 bytes" {
		t.Errorf("line 2 is %v", err)
	}
	if u, err := lines.next(); err != nil || u.OpenID != "o2" || lines.number != 3 {
		t.Errorf("line 3 is %+v, %v, its number %d", u, err, lines.number)
	}
	if _, err := lines.next(); !errors.Is(err, io.EOF) {
		t.Errorf("the end is %v", err)
	}
}

// TestSeenAtRange: what no TIMESTAMP holds is refused by its line, and not by the server with its
// batch.
func TestSeenAtRange(t *testing.T) {
	for s, ok := range map[string]bool{
		"1970-01-01T00:00:01Z": true, "1970-01-01T00:00:00Z": false, "2038-01-19T00:00:00Z": true,
		"2038-01-19T00:00:01Z": false, "2026-01-02 03:04:05.678": true,
		"2026-01-02T03:04:05.678+08:00": true, "0": false,
	} {
		if _, err := parseSeenAt(s); (err == nil) != ok {
			t.Errorf("%s: %v", s, err)
		}
	}
}
