package dbtest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jmoiron/sqlx"
)

// Server is what an expectation may depend on where servers rightly differ.
type Server struct {
	Name         string // MySQL, MariaDB or TiDB
	Major, Minor int    // TiDB's are those of the MySQL that it imitates
}

// ServerOf asks db's server what it is.
func ServerOf(t testing.TB, db *sqlx.DB) Server {
	t.Helper()
	var version string
	if err := db.GetContext(t.Context(), &version, `SELECT VERSION()`); err != nil {
		t.Fatalf("asking for the server's version: %v", err)
	}
	s, err := ParseServer(version)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ParseServer reads what a server says of itself, or "MariaDB 11.8".
func ParseServer(version string) (Server, error) {
	s := Server{Name: "MySQL"}
	for _, name := range []string{"MariaDB", "TiDB"} {
		if strings.Contains(version, name) {
			s.Name = name
		}
	}
	numbers := strings.TrimPrefix(version, s.Name+" ")
	if _, err := fmt.Sscanf(numbers, "%d.%d", &s.Major, &s.Minor); err != nil {
		return s, fmt.Errorf("the server's version is %q: %w", version, err)
	}
	return s, nil
}

// Since reports whether it is the named server, of this version or a later one.
func (s Server) Since(name string, major, minor int) bool {
	return s.Name == name && (s.Major > major || s.Major == major && s.Minor >= minor)
}
