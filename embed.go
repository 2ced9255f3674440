// Package unionbridge embeds the files that the program carries with it: the schema, the
// example configuration and the systemd unit. It holds no code.
package unionbridge

import "embed"

// SQL holds the folder sql: migrations/*.sql for goose, grants.sql and grants-tidb.sql.
//
//go:embed sql
var SQL embed.FS

// Unit is deploy/unionbridge.service.
//
//go:embed deploy/unionbridge.service
var Unit []byte

// ExampleConfig is config.example.yaml.
//
//go:embed config.example.yaml
var ExampleConfig []byte
