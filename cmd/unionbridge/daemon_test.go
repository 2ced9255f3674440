package main

import (
	"context"
	"database/sql/driver"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
)

// A part of the start that meets a database which has gone is done again when it is back; what a
// person must fix ends the start.
func TestPatiently(t *testing.T) {
	wrong := errors.New("another schema")
	for _, test := range []struct {
		answers []error
		want    error
	}{
		{[]error{driver.ErrBadConn, driver.ErrBadConn, nil}, nil},
		{[]error{driver.ErrBadConn, wrong, nil}, wrong},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := &daemon{log: slog.New(slog.DiscardHandler), notify: notifier{send: func(string) {}}}
			err := d.patiently(t.Context(), func(context.Context) (err error) {
				err, test.answers = test.answers[0], test.answers[1:]
				return err
			})
			if !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
		})
	}
}
