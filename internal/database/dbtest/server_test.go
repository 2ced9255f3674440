package dbtest

import "testing"

func TestParseServer(t *testing.T) {
	for version, want := range map[string]Server{
		"9.7.4-2":                          {"MySQL", 9, 7},
		"MariaDB 11.8":                     {"MariaDB", 11, 8},
		"8.0.43":                           {"MySQL", 8, 0},
		"10.11.19-MariaDB-0+deb12u1":       {"MariaDB", 10, 11},
		"11.8.9-MariaDB-4 from Debian":     {"MariaDB", 11, 8},
		"8.0.11-TiDB-v8.4.0-a-placeholder": {"TiDB", 8, 0},
	} {
		if got, err := ParseServer(version); err != nil || got != want {
			t.Errorf("%q = %v, %v, want %v", version, got, err, want)
		}
	}
	if _, err := ParseServer("unknown"); err == nil {
		t.Error("a version without numbers is accepted")
	}
	s := Server{"MariaDB", 11, 4}
	for _, c := range []struct {
		name         string
		major, minor int
		want         bool
	}{
		{"MariaDB", 11, 4, true}, {"MariaDB", 10, 11, true}, {"MariaDB", 11, 5, false},
		{"MariaDB", 12, 0, false}, {"MySQL", 8, 0, false},
	} {
		if got := s.Since(c.name, c.major, c.minor); got != c.want {
			t.Errorf("%v since %s %d.%d = %t", s, c.name, c.major, c.minor, got)
		}
	}
}
