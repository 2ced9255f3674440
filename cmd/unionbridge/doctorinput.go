package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge"
	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/doctor/checkup"
	"github.com/unionbridge/unionbridge/internal/status"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

// unitUser is whom deploy/unionbridge.service runs the daemon as.
const unitUser = "unionbridge"

// checkupInput is what doctor looks at. A configuration that cannot be used is a finding, no error.
func (c *cli) checkupInput(f doctorFlags) (checkup.Input, error) {
	in := checkup.Input{
		Version: buildInfo().version, ConfigPath: c.configPath, Offline: f.offline,
		CallbackURL: f.callbackURL, Root: "/", Unit: unionbridge.Unit, User: unitUser, Now: time.Now,
	}
	in.ConfigData, _ = os.ReadFile(c.configPath) // Load says why not
	if in.ConfigErr = c.loadConfig(); in.ConfigErr != nil {
		return in, nil //nolint:nilerr // it is what is found
	}
	cfg := c.cfg
	in.StateDir, in.BaseURL, in.DSN = cfg.StateDir, cfg.WeChat.BaseURL, cfg.Database.DSN.Reveal()
	in.Secrets, in.Listens = secretsOf(cfg, filepath.Dir(c.configPath)), listensOf(cfg)
	in.OpenDB = func(ctx context.Context) (*sqlx.DB, error) {
		return database.Open(ctx, databaseConfig(cfg, commandLogger(cfg.Log, io.Discard)))
	}
	in.Status = func(ctx context.Context, db *sqlx.DB) (status.Report, error) {
		return status.Read(ctx, db, statusConfig(cfg, false))
	}
	accounts, err := checkupAccounts(cfg, f.accounts)
	in.Accounts = accounts
	return in, err
}

// checkupAccounts are those that send, or the chosen ones. Their clients store nothing.
func checkupAccounts(cfg *config.Config, chosen []string) (accounts []checkup.Account, err error) {
	for _, appid := range chosen {
		if !slices.Contains(sendingAccounts(cfg), appid) {
			return nil, usageError("--account %s: the configuration has %s", appid,
				strings.Join(sendingAccounts(cfg), ", "))
		}
	}
	p := newParts(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), nil)
	for _, checked := range p.checkedAccounts() {
		if len(chosen) > 0 && !slices.Contains(chosen, checked.AppID) {
			continue
		}
		a := checkup.Account{Account: checked}
		for i, own := range cfg.OfficialAccounts {
			if own.AppID != a.AppID {
				continue
			}
			client := p.clients[a.AppID]
			a.Followers = func(ctx context.Context) (wechat.FollowerPage, error) {
				return client.Followers(ctx, "")
			}
			a.CallbackToken, a.CallbackKey = callbackOf(own.Callback, fmt.Sprintf("official_accounts[%d]", i))
		}
		for i, own := range cfg.MiniPrograms {
			if own.AppID == a.AppID {
				a.CallbackToken, a.CallbackKey = callbackOf(own.Callback, fmt.Sprintf("mini_programs[%d]", i))
			}
		}
		accounts = append(accounts, a)
	}
	return accounts, nil
}

func callbackOf(c *config.Callback, path string) (token, key string) {
	if c == nil {
		return "", ""
	}
	return c.Token.Reveal(), path + ".callback.token"
}

func listensOf(cfg *config.Config) []checkup.Listen {
	list := []checkup.Listen{{Key: "http.listen", Address: cfg.HTTP.Listen, Health: true, Open: true}}
	if cfg.HTTP.CallbackListen != "" {
		list = append(list, checkup.Listen{Key: "http.callback_listen", Address: cfg.HTTP.CallbackListen})
	}
	if cfg.HTTP.APIListen != "" {
		list = append(list, checkup.Listen{Key: "http.api_listen", Address: cfg.HTTP.APIListen})
	}
	return list
}

// secretsOf lists every secret of the configuration, with the file that it came from.
func secretsOf(cfg *config.Config, dir string) (list []checkup.Secret) {
	add := func(key string, kind checkup.Kind, value config.Secret, file string) {
		if !value.IsSet() {
			return
		}
		path := file
		if file != "" && !filepath.IsAbs(file) {
			path = filepath.Join(dir, file)
		}
		if path != "" {
			key += "_file"
		}
		list = append(list, checkup.Secret{Key: key, Kind: kind, Value: value.Reveal(), Path: path, Name: file})
	}
	callback := func(path string, c *config.Callback) {
		if c == nil {
			return
		}
		add(path+".callback.token", checkup.Other, c.Token, c.TokenFile)
		add(path+".callback.aes_key", checkup.AESKey, c.AESKey, c.AESKeyFile)
		add(path+".callback.previous_aes_key", checkup.AESKey, c.PreviousAESKey, c.PreviousAESKeyFile)
	}
	token := func(path string, t config.Token) {
		add(path+".token.url", checkup.Other, t.URL, t.URLFile)
		for name, h := range t.Header {
			add(path+".token.header."+name+".value", checkup.Other, h.Value, h.ValueFile)
		}
	}
	add("database.dsn", checkup.Other, cfg.Database.DSN, cfg.Database.DSNFile)
	for i, a := range cfg.OfficialAccounts {
		path := fmt.Sprintf("official_accounts[%d]", i)
		add(path+".secret", checkup.AppSecret, a.Secret, a.SecretFile)
		token(path, a.Token)
		callback(path, a.Callback)
	}
	for i, m := range cfg.MiniPrograms {
		path := fmt.Sprintf("mini_programs[%d]", i)
		add(path+".secret", checkup.AppSecret, m.Secret, m.SecretFile)
		token(path, m.Token)
		callback(path, m.Callback)
	}
	return list
}
