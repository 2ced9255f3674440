package database

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"log/slog"

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"
)

// LockHalves is LockIn on a server that ignores SKIP LOCKED.
func LockHalves(ctx context.Context, tx *sqlx.Tx, query string, ids []int64) ([]int64, error) {
	return lockHalves[int64](ctx, tx, Lock{Query: query + ` NOWAIT`}, ids)
}

// OpenAsTiDB treats any server as TiDB, with one connection.
func OpenAsTiDB(dsn string) (*sqlx.DB, error) {
	settings, err := driverConfig(Config{DSN: dsn})
	if err != nil {
		return nil, err
	}
	inner, err := mysql.NewConnector(settings)
	if err != nil {
		return nil, err
	}
	db := sqlx.NewDb(sql.OpenDB(asTiDB{connector{inner}}), "mysql")
	db.SetMaxOpenConns(1)
	return db, nil
}

type asTiDB struct{ connector }

func (c asTiDB) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	if already, ok := conn.(*tidbConn); ok {
		return already, nil
	}
	return &tidbConn{session: conn.(session)}, nil
}

// Announce is what migrate says of a table of large rows or more.
func Announce(ctx context.Context, db *sqlx.DB, log *slog.Logger, large int64) {
	announce(ctx, db, log, large)
}
