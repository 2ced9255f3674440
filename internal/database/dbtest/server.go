package dbtest

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
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

// Trigger creates a trigger. A test that needs one is skipped where the server has none, or wants
// more rights for it.
func Trigger(t testing.TB, db *sqlx.DB, stmt string) {
	t.Helper()
	if ServerOf(t, db).Name == "TiDB" {
		t.Skip("TiDB has no triggers")
	}
	_, err := db.ExecContext(t.Context(), stmt)
	if me, ok := errors.AsType[*mysql.MySQLError](err); ok && me.Number == 1419 {
		t.Skip("triggers take SUPER beside a binary log: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
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
