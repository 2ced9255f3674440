package privatedb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// tidbName begins the name of TiDB's server program, which knows no --version.
const tidbName = "tidb-server"

// parseTiDBVersion reads the answer to -V: lines of the form "Release Version: v8.4.0".
func parseTiDBVersion(answer string) string {
	first, _, _ := strings.Cut(answer, "\n")
	_, version, _ := strings.Cut(first, ": ")
	return "TiDB " + version
}

// prepareTiDB writes the settings that are no flags. TiDB reads the init file when it fills its
// folder and never again, so a password that is new at each start would not reach it.
func (s *Server) prepareTiDB(context.Context) error {
	if _, err := os.Stat(filepath.Join(s.dir, "data")); !errors.Is(err, os.ErrNotExist) {
		return errors.New("a private TiDB needs an empty data folder at each start")
	}
	settings := fmt.Sprintf("tmp-storage-path = %q\n[log]\nslow-query-file = %q\n",
		filepath.Join(s.dir, "tmp"), filepath.Join(s.dir, "slow.log"))
	if err := os.WriteFile(s.tidbConfig(), []byte(settings), 0o600); err != nil {
		return fmt.Errorf("writing TiDB's configuration: %w", err)
	}
	return nil
}

func (s *Server) tidbConfig() string { return filepath.Join(s.dir, "tidb.toml") }

// tidbArgs: one node, with its data in the folder and no status port.
func (s *Server) tidbArgs(cfg Config) []string {
	args := []string{
		"--config=" + s.tidbConfig(),
		"--store=unistore",
		"--path=" + filepath.Join(s.dir, "data"),
		"--temp-dir=" + filepath.Join(s.dir, "tmp"),
		"--host=127.0.0.1",
		"-P=" + strconv.Itoa(s.port),
		"--socket=" + s.Socket(),
		"--log-file=" + s.errorLog(),
		"-L=warn",
		"--report-status=false",
		"--initialize-sql-file=" + s.initFile(),
	}
	return append(args, cfg.Args...)
}
