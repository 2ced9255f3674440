package database

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/go-sql-driver/mysql"
)

// Error numbers of the servers. MySQL:
// https://dev.mysql.com/doc/mysql-errors/en/server-error-reference.html, MariaDB:
// https://mariadb.com/docs/server/reference/error-codes, TiDB:
// https://docs.pingcap.com/tidb/stable/error-codes.
const (
	erDBAccessDenied     = 1044
	erAccessDenied       = 1045
	erUnknownDatabase    = 1049
	erDuplicateEntry     = 1062
	erRecordChanged      = 1020 // MariaDB >= 11.6.2: innodb_snapshot_isolation
	erTableAccessDenied  = 1142
	erColumnAccessDenied = 1143
	erNoSuchTable        = 1146
	erUnknown            = 1105 // TiDB: every error that has no number of its own
	erErrorDuringCommit  = 1180 // Galera: a certification conflict seen at COMMIT
	erLockWaitTimeout    = 1205
	erLockNowait         = 3572 // MySQL and TiDB; MariaDB says 1205
	erDeadlock           = 1213 // also Galera's certification conflict
	erViewInvalid        = 1356 // the view's definer lacks a grant or is gone
	erTLSRequired        = 3159 // require_secure_transport
	erPrivilegeCheck     = 8121 // TiDB's 1142 for a row that is read or written by its key

	// ALTER TABLE with an ALGORITHM or a LOCK that the server cannot offer.
	erAlterUnsupported       = 1845
	erAlterUnsupportedReason = 1846
	erTiDBUnsupported        = 8200
)

// retryable are the numbers after which the whole transaction may be run again: it was rolled back
// (after 1205, by us), and nothing is wrong with the statement.
func retryable(number uint16) bool {
	switch number {
	case erRecordChanged, erLockWaitTimeout, erDeadlock,
		8002, // TiDB: SELECT FOR UPDATE write conflict
		8022, // TiDB: commit failed, transaction may be retried
		8028, // TiDB: schema changed during the transaction
		9007: // TiDB: write conflict
		return true
	}
	return false
}

// unavailable are the numbers of a server that cannot serve now.
func unavailable(number uint16) bool {
	switch number {
	case 1040, // too many connections
		1047,             // Galera: WSREP has not yet prepared node for application use
		1053,             // server shutdown in progress
		1077, 1079, 1080, // shutting down
		1152, 1158, 1159, 1160, 1161, // connection aborted, network errors
		1203, 1226, // max_user_connections, other limits of the user
		1290, 1792, 1836, // read-only: the old primary after a failover
		1927,       // MariaDB: connection was killed
		2006, 2013, // server has gone away, lost connection
		3032, 3168, // offline mode, server is not available
		3100, 3101, // Group Replication: rolled back, member not ready
		4031,                   // closed for inactivity
		9001, 9002, 9003, 9005: // TiDB: PD, TiKV or region not available
		return true
	}
	return false
}

// IsUnavailable reports whether err means that the server cannot be reached or cannot serve now, so
// that the same call may succeed later unchanged. The end of the caller's own context is not the
// server's fault and does not count.
func IsUnavailable(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	// A dial that ran into its own timeout says "deadline exceeded" too.
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return true
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	if me, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return unavailable(me.Number)
	}
	for _, target := range []error{
		driver.ErrBadConn, mysql.ErrInvalidConn, io.EOF, io.ErrUnexpectedEOF,
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, syscall.ENOENT, net.ErrClosed,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	_, ok := errors.AsType[net.Error](err)
	return ok
}

func isRetryable(err error) bool {
	me, ok := errors.AsType[*mysql.MySQLError](err)
	if !ok {
		return false
	}
	switch me.Number {
	case erErrorDuringCommit:
		return strings.Contains(strings.ToLower(me.Message), "deadlock")
	case erUnknown: // a statement that has met other transactions' rows 256 times
		return strings.Contains(me.Message, "pessimistic lock retry limit reached")
	}
	return retryable(me.Number) || string(me.SQLState[:]) == "40001"
}

// IsLockTimeout reports whether a statement gave up waiting for a row that another transaction
// holds. Retry and InTx repeat one that had to wait; a caller may prefer to do without the row.
func IsLockTimeout(err error) bool { return isServerError(err, erLockWaitTimeout, erLockNowait) }

// IsAnswer reports whether an error is the server's answer to a statement, which it has not carried out.
// Of any other error nobody knows.
func IsAnswer(err error) bool {
	_, ok := errors.AsType[*mysql.MySQLError](err)
	return ok
}

// IsDuplicate reports whether a unique key refused a statement.
func IsDuplicate(err error) bool { return isServerError(err, erDuplicateEntry) }

// IsRowError reports whether a value in a row made a statement fail, so that it would succeed
// without that row: SQLSTATE 21 (a subquery of a trigger returned several rows), 22 (data), 23
// (constraints) and 45 (raised by a trigger), and the numbers that have another state, or none.
func IsRowError(err error) bool {
	me, ok := errors.AsType[*mysql.MySQLError](err)
	if !ok {
		return false
	}
	switch me.Number {
	case 1265, // a value that an ENUM does not have, or that is cut
		1364, // no value for a column that has no default
		1366, // incorrect value for the column
		1644, // raised by a trigger, with any state
		3819, // MySQL: a CHECK is violated
		3988, // MySQL: the text cannot be converted into the column's character set
		1267: // mix of collations: TiDB judges it by the values
		return true
	}
	return slices.Contains([]string{"21", "22", "23", "45"}, string(me.SQLState[:2]))
}

// IsDenied reports whether a statement failed because the user lacks a grant.
func IsDenied(err error) bool {
	return isServerError(err, erTableAccessDenied, erColumnAccessDenied, erDBAccessDenied,
		erPrivilegeCheck)
}

func isServerError(err error, numbers ...uint16) bool {
	me, ok := errors.AsType[*mysql.MySQLError](err)
	return ok && slices.Contains(numbers, me.Number)
}

// denied matches "INSERT command denied to user 'a'@'h' for table `db`.`t`" (MariaDB), "… for table
// 't'" (MySQL) and "SELECT command denied to user … for column 'c' in table 't'".
var denied = regexp.MustCompile("^(.+?) command denied to user (\\S+) for (?:column '([^']*)' in " +
	")?table [`']?(?:([^`'.]+)[`']?\\.[`']?)?([^`']+)[`']?$")

// privilegeCheck matches TiDB's "privilege check for 'Insert' fail".
var privilegeCheck = regexp.MustCompile("^privilege check for '([^']+)' fail")

// Explain adds to an error about a missing grant what to grant, and to one about a missing table
// what to run. Other errors, and nil, come back as they are. The result wraps err.
func Explain(err error) error {
	me, ok := errors.AsType[*mysql.MySQLError](err)
	if !ok {
		return err
	}
	switch me.Number {
	case erTableAccessDenied, erColumnAccessDenied, erPrivilegeCheck:
		return fmt.Errorf("%w; %s", err, missingGrant(me.Message))
	case erDBAccessDenied:
		return fmt.Errorf("%w; the user has no grant on this schema, or it does not exist: see "+
			"sql/grants.sql", err)
	case erNoSuchTable:
		return fmt.Errorf("%w; run: unionbridge migrate up", err)
	case erViewInvalid:
		return fmt.Errorf("%w; the user that created the view is gone or lost its grants: run "+
			"unionbridge migrate up again as the present one", err)
	}
	return err
}

// missingGrant turns the server's message into the statement that fixes it.
func missingGrant(message string) string {
	if m := privilegeCheck.FindStringSubmatch(message); m != nil {
		return fmt.Sprintf("missing: GRANT %s ON a table of this statement (sql/grants.sql has the "+
			"roles, sql/grants-tidb.sql those of TiDB)", strings.ToUpper(m[1]))
	}
	m := denied.FindStringSubmatch(message)
	if m == nil {
		return "a grant is missing: see sql/grants.sql"
	}
	privilege, user, column, schema, table := m[1], m[2], m[3], m[4], m[5]
	if column != "" {
		privilege += " (" + column + ")"
	}
	if schema != "" {
		table = schema + "." + table
	}
	return fmt.Sprintf("missing: GRANT %s ON %s TO %s (sql/grants.sql has the roles)", privilege,
		table, user)
}

// parseError keeps of a DSN error only what cannot hold a piece of the DSN. The driver quotes
// values, and behind an unescaped '/' or '?' in a password the "value" is the password's rest.
func parseError(err error) error {
	const constant = "invalid DSN: "
	if strings.HasPrefix(err.Error(), constant) {
		return fmt.Errorf("%w; the form is user:password@tcp(host:3306)/schema", err)
	}
	return errors.New("invalid DSN: a parameter behind the ? has a value that is not understood; " +
		"the form is user:password@tcp(host:3306)/schema?name=value")
}

// connectError says what to do about the usual reasons why the first ping fails.
func connectError(c *mysql.Config, err error) error {
	return fmt.Errorf("connecting to %s as %q: %w%s", where(c), c.User, err, connectHint(c, err))
}

func connectHint(c *mysql.Config, err error) string {
	switch {
	case isServerError(err, erAccessDenied):
		hint := "; check user name and password in database.dsn, and from which hosts the server " +
			"lets this user in"
		if c.TLS == nil { // the servers answer REQUIRE SSL as they answer a wrong password
			hint += "; if the user may connect by TLS only (REQUIRE SSL), end database.dsn with ?tls=true"
		}
		return hint
	case isServerError(err, erTLSRequired):
		return "; the server accepts TLS only: end database.dsn with ?tls=true"
	case isServerError(err, erUnknownDatabase):
		return fmt.Sprintf("; create it first: CREATE DATABASE %s CHARACTER SET utf8mb4", c.DBName)
	case isServerError(err, erDBAccessDenied):
		return fmt.Sprintf("; grant this user access to the schema %s: see sql/grants.sql", c.DBName)
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT):
		return "; nothing listens there: is the server running, and is the address in database.dsn right?"
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return "; the host name in database.dsn cannot be resolved"
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return "; no answer: is the address in database.dsn right, does a firewall stand between?"
	}
	return ""
}
