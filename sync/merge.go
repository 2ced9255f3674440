package sync

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/unionbridge/unionbridge/bridge"
)

// questions is a batch for user/info/batchget, in the order of the openids.
type questions struct {
	openids []string
	known   map[string]bool // those that have a row already: former followers, and people never asked about
}

// compare merges the list with the table. Whoever is only in the list, or returned, is asked about and
// stored; whoever is only in the table and still called subscribed goes to missing. It returns how many
// rows the table called subscribed.
func (s *sweep) compare(ctx context.Context, listed, missing *spool) (subscribed int64, err error) {
	s.run.enter(phaseCompare, s.run.snapshot().Listed)
	list, err := listed.merge()
	if err != nil {
		return 0, err
	}
	group, ctx := errgroup.WithContext(ctx)
	table := s.scanTable(ctx, group)
	ask := make(chan questions)
	group.Go(func() error {
		defer close(ask)
		m := merger{list: list, table: table, missing: missing, ask: ask, advance: s.run.advance}
		var err error
		subscribed, err = m.merge(ctx)
		missing.closeRun()
		return err
	})
	group.Go(func() error { return s.askAndStore(ctx, ask) })
	return subscribed, group.Wait()
}

// scanPage is the number of rows of one keyset page of the table: the same as a page of the list.
const scanPage = 10_000

// scanTable reads the account's rows in key order, one page ahead of the merge.
func (s *sweep) scanTable(ctx context.Context, group *errgroup.Group) *tableReader {
	pages := make(chan []bridge.Entry)
	group.Go(func() error {
		defer close(pages)
		after := ""
		for {
			page, err := s.svc.people.Scan(ctx, s.account.AppID, after, scanPage)
			if err != nil {
				return err
			}
			select {
			case pages <- page:
			case <-ctx.Done():
				return ctx.Err()
			}
			if len(page) < scanPage {
				return nil
			}
			after = page[len(page)-1].OpenID
		}
	})
	return &tableReader{ctx: ctx, pages: pages}
}

// tableReader walks the pages entry by entry.
type tableReader struct {
	ctx   context.Context
	pages <-chan []bridge.Entry
	page  []bridge.Entry
}

// peek returns the current entry, or nil at the end of the table.
func (t *tableReader) peek() (*bridge.Entry, error) {
	for len(t.page) == 0 {
		page, ok := <-t.pages
		if !ok {
			// The channel closes after the last page and after a failed one; the failure has ended ctx.
			return nil, t.ctx.Err()
		}
		t.page = page
		if len(page) == 0 {
			return nil, nil
		}
	}
	return &t.page[0], nil
}

func (t *tableReader) advance() { t.page = t.page[1:] }

// merger walks the list and the table side by side.
type merger struct {
	list    *mergeReader
	table   *tableReader
	missing *spool
	ask     chan<- questions
	advance func(int64)

	batch questions
	seen  int64
}

// askBatch is the most that user/info/batchget takes.
const askBatch = 100

// merge returns the number of rows that the table calls subscribed.
func (m *merger) merge(ctx context.Context) (subscribed int64, err error) {
	openid, err := m.list.next()
	for err == nil {
		var entry *bridge.Entry
		entry, err = m.table.peek()
		if err != nil || (entry == nil && openid == nil) {
			break
		}
		if entry != nil && entry.Subscribed && (openid == nil || entry.OpenID <= string(openid)) {
			subscribed++
		}
		switch {
		case entry == nil || (openid != nil && string(openid) < entry.OpenID):
			err = m.question(ctx, string(openid), false)
			if err == nil {
				openid, err = m.list.next()
			}
		case openid == nil || entry.OpenID < string(openid):
			if entry.Subscribed {
				err = m.missing.add(entry.OpenID)
			}
			m.table.advance()
		default:
			if !entry.Subscribed || !entry.Asked {
				err = m.question(ctx, entry.OpenID, true)
			} else {
				m.step()
			}
			m.table.advance()
			if err == nil {
				openid, err = m.list.next()
			}
		}
	}
	if err != nil {
		return 0, err
	}
	m.advance(m.seen)
	return subscribed, m.flush(ctx)
}

// step counts a follower about whom there is nothing to do; the count goes out in the hundreds, it is
// behind a lock.
func (m *merger) step() {
	if m.seen++; m.seen == 1000 {
		m.advance(m.seen)
		m.seen = 0
	}
}

func (m *merger) question(ctx context.Context, openid string, known bool) error {
	if m.batch.openids == nil {
		m.batch.openids = make([]string, 0, askBatch)
	}
	m.batch.openids = append(m.batch.openids, openid)
	if known {
		if m.batch.known == nil {
			m.batch.known = map[string]bool{}
		}
		m.batch.known[openid] = true
	}
	if len(m.batch.openids) < askBatch {
		return nil
	}
	return m.flush(ctx)
}

func (m *merger) flush(ctx context.Context) error {
	if len(m.batch.openids) == 0 {
		return nil
	}
	select {
	case m.ask <- m.batch:
		m.batch = questions{}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
