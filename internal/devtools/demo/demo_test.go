package main

import (
	"bytes"
	"testing"
)

func TestDescribe(t *testing.T) {
	got := describe(map[string]int64{"sent": 1200, "pending": 3, "failed": 0})
	if want := "3 pending, 1,200 sent"; got != want {
		t.Errorf("describe() = %q, want %q", got, want)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"-requests", "0"}, {"-mini-users", "10"}, {"argument"}, {"-unknown"}} {
		var out, errs bytes.Buffer
		code := program().Execute(t.Context(), args, &out, &errs)
		if code != 2 || errs.Len() == 0 || out.Len() > 0 {
			t.Errorf("%q: exit code %d, said %q", args, code, errs.String())
		}
	}
}
