package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/bridge/grants"
	"github.com/unionbridge/unionbridge/internal/intake"
	"github.com/unionbridge/unionbridge/internal/web/api"
	"github.com/unionbridge/unionbridge/sender/channel"
)

// front leads requests to the native door, or to the one for SDKs. It looks at the path as it was
// decoded once, and changes nothing.
func front(native, compat http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, api.Prefix) {
			native.ServeHTTP(w, r)
			return
		}
		compat.ServeHTTP(w, r)
	})
}

// doorPeople is the map as the native door shows it.
type doorPeople struct{ identities *bridge.Map }

// People returns who is behind ids, as far as the accounts know.
func (d doorPeople) People(ctx context.Context, appids, ids []string) ([]api.Person, error) {
	found, err := d.identities.People(ctx, appids, ids)
	people := make([]api.Person, len(found))
	for i, p := range found {
		people[i] = api.Person{ID: p.ID, UnionID: p.UnionID, Accounts: make([]api.Account, len(p.Accounts))}
		for j, a := range p.Accounts {
			kind := "official"
			if a.Mini {
				kind = "mini"
			}
			people[i].Accounts[j] = api.Account{AppID: a.AppID, OpenID: a.OpenID, Kind: kind,
				Subscribed: a.Subscribed}
		}
	}
	return people, err
}

// doorGrants takes reports of what people have allowed.
type doorGrants struct {
	ledger    *grants.Ledger
	templates channel.Templates
}

// Report stores reports of a mini program, whose templates may be named by their aliases.
func (d doorGrants) Report(
	ctx context.Context, application, appid string, reports []api.Report,
) error {
	if !d.ledger.Counts(appid) {
		return &intake.Rejection{Code: 40013, Field: "appid", Message: "invalid appid: no subscriptions " +
			"are counted for it (mini_programs[].grants)"}
	}
	stored := make([]grants.Report, len(reports))
	for i, r := range reports {
		id, why := d.templates.ID(r.Template, appid)
		if why != nil {
			return &intake.Rejection{Code: 40037, Field: fmt.Sprintf("reports[%d].template", i),
				Message: "invalid template_id: " + why.Message}
		}
		stored[i] = grants.Report{Grant: grants.Grant{OpenID: r.OpenID, TemplateID: id},
			Result: r.Result, Key: reportKey(application, r.Key), At: r.AcceptedAt}
	}
	return d.ledger.Submit(ctx, appid, stored)
}

// reportKey is an application's key as the table has it: two of them may use the same one. A long one is
// hashed, as the column has its width.
func reportKey(application, key string) string {
	const width = 128
	if own := application + ":" + key; len(own) <= width {
		return own
	}
	sum := sha256.Sum256([]byte(key))
	return application + ":#" + base64.RawURLEncoding.EncodeToString(sum[:])
}
