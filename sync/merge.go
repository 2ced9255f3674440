package sync

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/sync/spool"
)

// batch is one call of user/info/batchget, in the order of the openids.
type batch struct {
	openids []string
	known   map[string]bool // those with a row already: former followers, or never fetched
}

// compare merges the list with the table. Whoever is only in the list, or has returned, is fetched
// and stored. Whoever is only in the table and still called subscribed goes to missing. It returns
// what the table knew.
func (s *sweep) compare(ctx context.Context, listed, missing *spool.File) (known tally, err error) {
	s.run.enter(phaseCompare, s.run.snapshot().Listed)
	list, err := listed.Merge()
	if err != nil {
		return tally{}, err
	}
	first, err := s.svc.identities.Scan(ctx, s.account.AppID, bridge.Page{Limit: 1})
	if err != nil {
		return tally{}, err
	}
	s.empty = len(first) == 0
	if err := s.stillBound(ctx); err != nil {
		return tally{}, err
	}
	group, ctx := errgroup.WithContext(ctx)
	table := s.scanTable(ctx, group)
	batches := make(chan batch)
	group.Go(func() error {
		defer close(batches)
		m := merger{
			list: list, table: table, missing: missing, batches: batches, advance: s.run.advance,
		}
		err := m.merge(ctx)
		known = m.known
		return err
	})
	group.Go(func() error { return s.fetchAndStore(ctx, batches) })
	return known, group.Wait()
}

// scanPage is the number of rows of one keyset page of the table: the same as a page of the list.
const scanPage = 10_000

// scanTable reads the account's rows in key order, one page ahead of the merge.
func (s *sweep) scanTable(ctx context.Context, group *errgroup.Group) *tableReader {
	pages := make(chan []bridge.Entry)
	next := bridge.Page{Limit: scanPage}
	if r := s.run.snapshot(); r.Mode == modeRebind {
		next.Since = r.Started // answers since then have the new unionids
	}
	group.Go(func() error {
		defer close(pages)
		for {
			page, err := s.svc.identities.Scan(ctx, s.account.AppID, next)
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
			next.After = page[len(page)-1].OpenID
		}
	})
	return &tableReader{ctx: ctx, pages: pages}
}

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
			// The channel closes after the last page and after a failed one; the failure has ended
			// ctx.
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

// tally counts what the table knew of an account.
type tally struct {
	subscribed  int64
	notAsked    int64 // of the subscribed: never fetched
	withUnionID int64 // of the subscribed
}

func (t *tally) add(e *bridge.Entry) {
	if !e.Subscribed {
		return
	}
	t.subscribed++
	switch {
	case e.HasUnionID:
		t.withUnionID++
	case !e.Asked:
		t.notAsked++
	}
}

type merger struct {
	list    *spool.Reader
	table   *tableReader
	missing *spool.File
	batches chan<- batch
	advance func(int64)

	known  tally
	batch  batch
	absent []string // of missing, not written yet
	seen   int64
}

// batchSize is the most that user/info/batchget takes.
const batchSize = 100

func (m *merger) merge(ctx context.Context) error {
	openid, err := m.list.Next()
	for err == nil {
		var entry *bridge.Entry
		entry, err = m.table.peek()
		if err != nil || (entry == nil && openid == nil) {
			break
		}
		switch {
		case entry == nil || (openid != nil && string(openid) < entry.OpenID):
			err = m.fetch(ctx, string(openid), false)
			if err == nil {
				openid, err = m.list.Next()
			}
		case openid == nil || entry.OpenID < string(openid):
			err = m.miss(entry)
		default:
			err = m.meet(ctx, entry)
			if err == nil {
				openid, err = m.list.Next()
			}
		}
	}
	if err != nil {
		return err
	}
	m.advance(m.seen)
	if err := m.missing.Append(m.absent, ""); err != nil {
		return err
	}
	return m.flush(ctx)
}

func (m *merger) meet(ctx context.Context, e *bridge.Entry) error {
	m.known.add(e)
	m.table.advance()
	if !e.Subscribed || !e.Asked {
		return m.fetch(ctx, e.OpenID, true)
	}
	m.step()
	return nil
}

func (m *merger) miss(e *bridge.Entry) error {
	m.known.add(e)
	m.table.advance()
	if !e.Subscribed {
		return nil
	}
	m.absent = append(m.absent, e.OpenID)
	if len(m.absent) < scanPage {
		return nil
	}
	err := m.missing.Append(m.absent, "")
	m.absent = m.absent[:0]
	return err
}

// step counts a follower who needs nothing. It reports a thousand at a time, because the count is
// behind a lock.
func (m *merger) step() {
	if m.seen++; m.seen == 1000 {
		m.advance(m.seen)
		m.seen = 0
	}
}

func (m *merger) fetch(ctx context.Context, openid string, known bool) error {
	if m.batch.openids == nil {
		m.batch.openids = make([]string, 0, batchSize)
	}
	m.batch.openids = append(m.batch.openids, openid)
	if known {
		if m.batch.known == nil {
			m.batch.known = map[string]bool{}
		}
		m.batch.known[openid] = true
	}
	if len(m.batch.openids) < batchSize {
		return nil
	}
	return m.flush(ctx)
}

func (m *merger) flush(ctx context.Context) error {
	if len(m.batch.openids) == 0 {
		return nil
	}
	select {
	case m.batches <- m.batch:
		m.batch = batch{}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
