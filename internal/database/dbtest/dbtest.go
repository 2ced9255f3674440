// Package dbtest gives each test its own schema on a real server. Tests of a program whose heart is
// SQL meet the real thing; a mock would only repeat the SQL.
package dbtest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// Variable names the environment variable with the DSN of a server on which the tests may create
// and drop schemas and users. A schema in it is ignored.
const Variable = "UNIONBRIDGE_TEST_DSN"

// New returns a database with a fresh, migrated schema, which ends with the test.
func New(t testing.TB) *sqlx.DB {
	t.Helper()
	db := Open(t, Empty(t))
	if _, err := database.Migrate(t.Context(), db, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatalf("migrating the test's schema: %v", err)
	}
	return db
}

// Empty creates a schema without tables, dropped at the test's end, and returns the DSN to it.
func Empty(t testing.TB) string {
	t.Helper()
	cfg := server(t)
	// Random: packages are tested in parallel, and several checkouts may share a server.
	cfg.DBName = "unionbridge_test_" + strings.ToLower(rand.Text()[:12])
	admin := admin(t, cfg)
	var collation string
	if err := admin.GetContext(t.Context(), &collation, "SELECT @@collation_server"); err != nil {
		t.Fatalf("asking for the server's collation: %v", err)
	}
	create := "CREATE DATABASE " + cfg.DBName + " CHARACTER SET utf8mb4"
	// With CHARACTER SET alone every server takes utf8mb4's default, whatever its own setting is.
	if strings.HasPrefix(collation, "utf8mb4_") {
		create += " COLLATE " + collation
	}
	if _, err := admin.ExecContext(t.Context(), create); err != nil {
		t.Fatalf("creating schema %s: %v", cfg.DBName, err)
	}
	t.Cleanup(func() {
		// The test's context has ended by now.
		if _, err := admin.ExecContext(context.Background(), "DROP DATABASE IF EXISTS "+cfg.DBName); err != nil {
			t.Errorf("dropping schema %s: %v", cfg.DBName, err)
		}
	})
	return cfg.FormatDSN()
}

// Open opens dsn as the program does and closes it at the test's end.
func Open(t testing.TB, dsn string) *sqlx.DB {
	t.Helper()
	db, err := database.Open(t.Context(), database.Config{DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("closing the database: %v", err)
		}
	})
	return db
}

// DSN returns the DSN of db's schema, for a program or a second pool.
func DSN(t testing.TB, db *sqlx.DB) string {
	t.Helper()
	cfg := server(t)
	if err := db.GetContext(t.Context(), &cfg.DBName, "SELECT DATABASE()"); err != nil {
		t.Fatalf("asking for the schema's name: %v", err)
	}
	return cfg.FormatDSN()
}

// DSNAs is DSN for another user of the same server.
func DSNAs(t testing.TB, db *sqlx.DB, user, password string) string {
	t.Helper()
	cfg, err := mysql.ParseDSN(DSN(t, db))
	if err != nil {
		t.Fatal(err)
	}
	cfg.User, cfg.Passwd = user, password
	return cfg.FormatDSN()
}

// server returns the settings of the test server. Where there is none, CI fails, where a skipped
// test would look like a passed one; elsewhere the test is skipped.
func server(t testing.TB) *mysql.Config {
	t.Helper()
	dsn := os.Getenv(Variable)
	switch {
	case dsn == "" && os.Getenv("CI") != "":
		t.Fatalf("%s is not set: run the tests with `make test`, which starts a private server", Variable)
	case dsn == "":
		t.Skipf("%s is not set: run `make test`, or `go run ./internal/devtools/privatedb -- go test ./...`", Variable)
	}
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatalf("%s is not a DSN (user:password@tcp(host:3306)/)", Variable)
	}
	return cfg
}

func admin(t testing.TB, cfg *mysql.Config) *sqlx.DB {
	t.Helper()
	outside := cfg.Clone()
	outside.DBName = ""
	connector, err := mysql.NewConnector(outside)
	if err != nil {
		t.Fatalf("connecting to the server of %s: %v", Variable, err)
	}
	db := sqlx.NewDb(sql.OpenDB(connector), "mysql")
	t.Cleanup(func() { _ = db.Close() })
	return db
}
