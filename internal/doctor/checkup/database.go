package checkup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// The servers' error numbers that have a cure of their own.
const (
	erDBAccessDenied  = 1044
	erAccessDenied    = 1045
	erUnknownDatabase = 1049
	erTLSRequired     = 3159
)

// database opens the database once.
func (e *exam) database(ctx context.Context) (*sqlx.DB, error) {
	if e.Offline || e.OpenDB == nil {
		return nil, errors.New("no database is asked")
	}
	if e.db == nil && e.dbErr == nil {
		e.db, e.dbErr = e.OpenDB(ctx)
	}
	return e.db, e.dbErr
}

func checkDatabase(ctx context.Context, e *exam) []finding {
	dsn, err := mysql.ParseDSN(e.DSN)
	if err != nil {
		return []finding{bad(Fail, "database.dsn cannot be read", "problem",
			"user:password@tcp(host:3306)/schema")}
	}
	_, err = e.database(ctx)
	if err == nil {
		return []finding{ok("%s answers, schema %s", dsn.Addr, dsn.DBName)}
	}
	return []finding{explainConnection(dsn, err)}
}

// deniedHost matches the user and the host as the server sees them.
var deniedHost = regexp.MustCompile(`Access denied for user '([^']*)'@'([^']*)'`)

func explainConnection(dsn *mysql.Config, err error) finding {
	seen := strings.TrimPrefix(err.Error(), "opening database: ")
	if me, ok := errors.AsType[*mysql.MySQLError](err); ok {
		switch me.Number {
		case erAccessDenied:
			user := "'" + dsn.User + "'@'%'"
			if m := deniedHost.FindStringSubmatch(me.Message); m != nil {
				user = "'" + m[1] + "'@'" + m[2] + "'"
			}
			return bad(Fail, seen, "denied", user)
		case erDBAccessDenied:
			return bad(Fail, seen, "schemadenied", dsn.DBName)
		case erUnknownDatabase:
			return bad(Fail, seen, "noschema", dsn.DBName)
		case erTLSRequired:
			return bad(Fail, seen, "tls")
		}
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) {
		return bad(Fail, seen, "refused", dsn.Addr)
	}
	return finding{state: Fail, seen: seen}
}

// What the server must at least be and allow.
const (
	minPacket      = 16 << 20
	minWaitSeconds = 60
)

func checkServer(ctx context.Context, e *exam) (found []finding) {
	var v struct {
		Version string `db:"version"`
		Mode    string `db:"mode"`
		Packet  int64  `db:"packet"`
		Wait    int64  `db:"wait"`
	}
	const query = `
		SELECT VERSION() AS version, @@GLOBAL.sql_mode AS mode, @@max_allowed_packet AS packet,
		       @@wait_timeout AS wait`
	if err := e.db.GetContext(ctx, &v, query); err != nil {
		return []finding{{state: Fail, seen: err.Error()}}
	}
	if tooOld(v.Version) {
		found = append(found, bad(Fail, "the server is "+v.Version, "version", v.Version))
	}
	if v.Packet < minPacket {
		found = append(found, bad(Fail, fmt.Sprintf("max_allowed_packet is %d", v.Packet), "setglobal",
			fmt.Sprintf("max_allowed_packet = %d", minPacket)))
	}
	if v.Wait < minWaitSeconds {
		found = append(found, bad(Fail, fmt.Sprintf("wait_timeout is %d s", v.Wait), "setglobal",
			"wait_timeout = 28800"))
	}
	// Our own sessions are strict whatever it says; the producers' are not.
	if !strings.Contains(v.Mode, "STRICT_") {
		found = append(found, bad(Warn, "sql_mode is not strict: producers may store half a value",
			"setglobal", "sql_mode = CONCAT(@@GLOBAL.sql_mode, ',STRICT_TRANS_TABLES')"))
	}
	if found == nil {
		return []finding{ok("%s", v.Version)}
	}
	return found
}

// tooOld reads "10.5.8-MariaDB", "8.0.36" and "8.0.11-TiDB-v8.5.0".
func tooOld(version string) bool {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, err := strconv.Atoi(major)
	b, err2 := strconv.Atoi(minor)
	if err != nil || err2 != nil {
		return false
	}
	if strings.Contains(version, "MariaDB") {
		return a < 10 || a == 10 && b < 6
	}
	return a < 8
}

func checkRights(ctx context.Context, e *exam) []finding {
	err := database.CheckGrants(ctx, e.db)
	switch {
	case err == nil:
		return []finding{ok("every statement of the daemon is allowed")}
	case !database.IsDenied(err):
		return []finding{skip("depends on schema: %v", firstLine(err))}
	}
	var found []finding
	for _, grant := range regexp.MustCompile(`missing: (GRANT [^\n;]+?)(?: \(sql/|\n|$)`).
		FindAllStringSubmatch(err.Error(), -1) {
		found = append(found, bad(Fail, "a grant is missing", "grant", grant[1]))
	}
	if found == nil {
		found = []finding{{state: Fail, seen: firstLine(err)}}
	}
	return found
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

func checkSchema(ctx context.Context, e *exam) []finding {
	err := database.CheckSchema(ctx, e.db)
	if err == nil {
		return []finding{ok("every migration of this version is there")}
	}
	state, is := errors.AsType[*database.SchemaError](err)
	if is && len(state.Unknown) > 0 {
		return []finding{bad(Fail, err.Error(), "newer", state.Unknown[len(state.Unknown)-1], state.Want)}
	}
	return []finding{bad(Fail, firstLine(err), "migrate")}
}

// checkClone looks at leases that nobody renews in this database. Where the machine of their holder
// runs a daemon, that one works on another database: this is a copy of it.
func checkClone(ctx context.Context, e *exam) []finding {
	const query = `
		SELECT DISTINCT holder FROM lease
		 WHERE holder <> '' AND expires_at < CURRENT_TIMESTAMP(3) - INTERVAL 1 MINUTE
		   AND holder NOT IN (SELECT holder FROM lease WHERE expires_at > CURRENT_TIMESTAMP(3))`
	var holders []string
	if err := e.db.SelectContext(ctx, &holders, query); err != nil {
		return []finding{{state: Fail, seen: err.Error()}}
	}
	own, _ := os.Hostname()
	port := "8080"
	for _, l := range e.Listens {
		if _, p, err := net.SplitHostPort(l.Address); l.Health && err == nil {
			port = p
		}
	}
	asked := map[string]bool{own: true, "": true}
	for _, holder := range holders {
		host := hostOf(holder)
		if asked[host] {
			continue
		}
		asked[host] = true
		if version, _, ours := health(ctx, net.JoinHostPort(host, port)); ours {
			return []finding{bad(Fail, fmt.Sprintf("%s held leases here and renews none, and runs a daemon "+
				"of version %s", host, version), "restored", host)}
		}
	}
	return []finding{ok("no other database of this installation is seen")}
}

// hostOf is the machine in a lease holder's name, HOST-PID-RANDOM.
func hostOf(holder string) string {
	for range 2 {
		at := strings.LastIndexByte(holder, '-')
		if at < 0 {
			return ""
		}
		holder = holder[:at]
	}
	return holder
}

// followers is about how many people the map has; 0 where that is not known.
func (e *exam) followers(ctx context.Context) (n int64) {
	db, err := e.database(ctx)
	if err != nil {
		return 0
	}
	const query = `
		SELECT COALESCE(MAX(table_rows), 0) FROM information_schema.tables
		 WHERE table_schema = DATABASE() AND table_name = 'follower'`
	if err := db.GetContext(ctx, &n, query); err != nil {
		return 0
	}
	return n
}
