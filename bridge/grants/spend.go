package grants

import (
	"context"
	"slices"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
)

// concern is a grant that new entries of the ledger are about.
type concern struct {
	Grant
	at time.Time // of the message, if spends
	// spends: the only new entry is a message that takes one of the person's acceptances.
	spends bool
}

// concerns returns the grants of entries, which are in their order. fresh: the ledger had none of the
// entries.
func (w writer) concerns(entries []entry, fresh bool) (list []concern) {
	for _, e := range entries {
		c := concern{e.grant(), e.HappenedAt,
			fresh && e.Kind == kindSent && w.kinds[e.TemplateID] == kindOneTime}
		if last := len(list) - 1; last >= 0 && list[last].Grant == c.Grant {
			list[last].spends = false
			continue
		}
		list = append(list, c)
	}
	return list
}

// maxOthers is how many of a part's grants are computed each on its own, so that a message of the others
// need not be. With more of them one statement for all is cheaper.
const maxOthers = 3

// settle brings grants up to date, in their order, which is that of the locks.
func (w writer) settle(ctx context.Context, part []concern) error {
	others := 0
	for _, c := range part {
		if !c.spends {
			others++
		}
	}
	for len(part) > 0 {
		n := len(part)
		if others <= maxOthers {
			other := func(c concern) bool { return c.spends != part[0].spends }
			if i := slices.IndexFunc(part, other); i > 0 {
				n = i
			}
		}
		done, err := w.spend(ctx, part[:n])
		if err == nil && !done {
			err = w.update(ctx, part[:n])
		}
		if err != nil {
			return err
		}
		part = part[n:]
	}
	return nil
}

// spend takes one from each of the grants without reading their ledgers. It reports whether that is
// right for all of them: the message counts, and no acceptance is newer, so that it is the last step of
// tally but for other messages. Else it may have changed some, and all have to be computed.
func (w writer) spend(ctx context.Context, part []concern) (done bool, err error) {
	if slices.ContainsFunc(part, func(c concern) bool { return !c.spends }) {
		return false, nil
	}
	grants := make([]Grant, len(part))
	first, last := part[0].at, part[0].at
	for i, c := range part {
		grants[i] = c.Grant
		if c.at.Before(first) {
			first = c.at
		}
		if c.at.After(last) {
			last = c.at
		}
	}
	where, args := anyOf(w.appid, grants)
	first, last = first.UTC(), last.UTC()
	n, err := database.ExecIn(ctx, w.tx, `
		UPDATE subscription_grant
		   SET remaining = CASE WHEN remaining > 0 THEN remaining - 1 ELSE 0 END,
		       kind = '`+kindOneTime+`', updated_at = CURRENT_TIMESTAMP(3)
		 WHERE `+where+` AND (kind IS NULL OR kind = '`+kindOneTime+`')
		   AND accepted_at <= ? AND (refused_at IS NULL OR refused_at < ?)
		   AND (off_at IS NULL OR off_at < ?) AND ? <= CURRENT_TIMESTAMP(3)`,
		append(args, first.Add(doubt), first, first.Add(-doubt), last)...)
	return n == int64(len(part)), err
}
