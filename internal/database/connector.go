package database

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// connector sets the isolation level on each new connection, so that it holds for autocommit
// statements as well. It cannot go through the DSN: the variable is transaction_isolation on MySQL
// and TiDB and tx_isolation on MariaDB < 11.1; the statement is the same everywhere.
//
// READ COMMITTED because under REPEATABLE READ a range UPDATE locks the gaps too, and producers'
// INSERTs would wait for the claimer.
type connector struct{ driver.Connector }

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	inner, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := prepare(ctx, inner)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("preparing the connection: %w", err), inner.Close())
	}
	return conn, nil
}

func prepare(ctx context.Context, inner driver.Conn) (driver.Conn, error) {
	conn, ok := inner.(session)
	if !ok {
		return nil, fmt.Errorf("the driver's %T cannot do what is needed", inner)
	}
	const isolation = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
	if _, err := conn.ExecContext(ctx, isolation, nil); err != nil {
		return nil, err
	}
	version, err := askVersion(ctx, conn)
	if err != nil || !strings.Contains(version, "TiDB") {
		return conn, err
	}
	// FOR UPDATE locks nothing in an optimistic transaction, the default of clusters that are older
	// than TiDB 3.0.8.
	const mode = "SET SESSION tidb_txn_mode = 'pessimistic'"
	if _, err := conn.ExecContext(ctx, mode, nil); err != nil {
		return nil, err
	}
	return &tidbConn{session: conn}, nil
}

func askVersion(ctx context.Context, conn driver.QueryerContext) (string, error) {
	rows, err := conn.QueryContext(ctx, "SELECT VERSION()", nil)
	if err != nil {
		return "", err
	}
	row := make([]driver.Value, 1)
	err = errors.Join(rows.Next(row), rows.Close())
	return fmt.Sprintf("%s", row[0]), err
}

// session is all that the driver's connection offers to database/sql: a wrapper that left one of
// these out would silently lose it.
type session interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.NamedValueChecker
	driver.Pinger
	driver.QueryerContext
	driver.SessionResetter
	driver.Validator
}

// tidbConn runs each single UPDATE, INSERT or DELETE in a transaction. TiDB makes an autocommit
// statement optimistic: it then waits for a row that another transaction holds as long as that
// takes, whatever innodb_lock_wait_timeout says, and may be carried out after we have given it up.
type tidbConn struct {
	session
	inTx   bool
	broken bool
}

func (c *tidbConn) ExecContext(
	ctx context.Context, query string, args []driver.NamedValue,
) (driver.Result, error) {
	if c.inTx || !writes(query) {
		return c.session.ExecContext(ctx, query, args)
	}
	tx, err := c.session.BeginTx(ctx, driver.TxOptions{})
	if err != nil {
		return nil, err
	}
	res, err := c.session.ExecContext(ctx, query, args)
	if err != nil {
		// The first error is the one that matters. After a second one the transaction may be open.
		c.broken = tx.Rollback() != nil
		return nil, err
	}
	if err := tx.Commit(); err != nil {
		c.broken = true
		return nil, err
	}
	return res, nil
}

// IsValid lets nobody have a connection again whose transaction may be open.
func (c *tidbConn) IsValid() bool { return !c.broken && c.session.IsValid() }

func (c *tidbConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	tx, err := c.session.BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	c.inTx = true
	return tidbTx{tx, c}, nil
}

type tidbTx struct {
	driver.Tx
	conn *tidbConn
}

func (t tidbTx) Commit() error {
	t.conn.inTx = false
	return t.Tx.Commit()
}

func (t tidbTx) Rollback() error {
	t.conn.inTx = false
	return t.Tx.Rollback()
}

// writes reports whether a statement changes rows.
func writes(query string) bool {
	query = strings.TrimSpace(query)
	verb := query[:max(strings.IndexFunc(query, unicode.IsSpace), 0)]
	switch strings.ToUpper(verb) {
	case "UPDATE", "INSERT", "DELETE", "REPLACE":
		return true
	}
	return false
}
