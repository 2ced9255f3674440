package grants

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/wechat/push"
)

// Popup counts the answers of a person who was asked. Only acceptances count: a refusal takes back
// nothing that was accepted before. The same push may come again.
func (l *Ledger) Popup(ctx context.Context, appid string, choices []push.Choice) error {
	if !l.takes(appid, Events) {
		return nil
	}
	var entries []entry
	for _, c := range choices {
		if c.Accepted() {
			entries = append(entries, entryOf(c, kindAccept, "popup", c.Scene))
		}
	}
	return l.take(ctx, appid, entries)
}

// Change counts what a person has switched off in the settings. Switching on again is no acceptance
// of a one-time template: the mini program has to ask once more.
func (l *Ledger) Change(ctx context.Context, appid string, choices []push.Choice) error {
	if !l.Counts(appid) {
		return nil
	}
	var entries []entry
	for _, c := range choices {
		switch {
		case c.Accepted():
			entries = append(entries, entryOf(c, kindOn, "change", c.Result))
		case c.Result == "reject":
			entries = append(entries, entryOf(c, kindOff, "change", c.Result))
		}
	}
	return l.take(ctx, appid, entries)
}

// entryOf makes an entry of a choice. The key is the push's own without the person and the template,
// which the primary key holds already.
func entryOf(c push.Choice, kind, event, last string) entry {
	return entry{OpenID: c.OpenID, TemplateID: c.TemplateID, Kind: kind, Source: sourceEvent,
		HappenedAt: c.At, Key: fmt.Sprintf("%s:%d:%s", event, c.At.Unix(), last)}
}

// take stores what a push says, and then tells who was accepted.
func (l *Ledger) take(ctx context.Context, appid string, entries []entry) error {
	if len(entries) == 0 {
		return nil
	}
	err := database.InTx(ctx, l.cfg.DB, func(ctx context.Context, tx *sqlx.Tx) error {
		return writer{Ledger: l, tx: tx, appid: appid}.record(ctx, entries)
	})
	if err != nil {
		return fmt.Errorf("counting what a person allows: %w", err)
	}
	l.tell(ctx, appid, accepted(entries))
	return nil
}

// accepted returns the grants that entries may have raised.
func accepted(entries []entry) (granted []Grant) {
	for _, e := range entries {
		if e.Kind == kindAccept || e.Kind == kindOn {
			granted = append(granted, e.grant())
		}
	}
	return granted
}
