package link

import (
	"context"
	"net"
	"testing"
	"time"
)

// TestThief: the server gets everything, and the program gets all answers but one.
func TestThief(t *testing.T) {
	thief, dsn, err := OpenThief("u:secret@tcp(" + echo(t) + ")/db")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = thief.Close() }()
	settings, err := parseTCP(dsn)
	if err != nil {
		t.Fatal(err)
	}
	say := func(statement string) (answer string, err error) {
		t.Helper()
		var d net.Dialer
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		conn, err := d.DialContext(ctx, "tcp", settings.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		deadline, _ := ctx.Deadline()
		if err := conn.SetDeadline(deadline); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(statement)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		n, err := conn.Read(buf)
		return string(buf[:n]), err
	}
	for _, hangs := range []bool{false, true} {
		thief.Steal(hangs, "UPDATE", "lease")
		for _, other := range []string{"UPDATE follower", "SELECT lease"} {
			if answer, err := say(other); answer != other || err != nil {
				t.Errorf("hangs %v: %s: %q, %v", hangs, other, answer, err)
			}
		}
		if thief.Stole() {
			t.Error("another answer was stolen")
		}
		answer, err := say("UPDATE the lease")
		if silent := isTimeout(err); err == nil || silent != hangs || !thief.Stole() {
			t.Errorf("hangs %v: answer %q, error %v", hangs, answer, err)
		}
		if answer, err := say("UPDATE the lease"); answer == "" || err != nil {
			t.Errorf("hangs %v: a second answer was stolen: %v", hangs, err)
		}
	}
}

func isTimeout(err error) bool {
	timeout, ok := err.(net.Error) //nolint:errorlint // it comes straight from the connection
	return ok && timeout.Timeout()
}
