package queue

import (
	"context"
	"maps"
	"slices"
)

const (
	// maxLook lanes are looked behind in one look. An account has 25 templates; more lanes than this
	// come from many accounts, or from producers who invent templates.
	maxLook = 250
	// maxRounds bounds the queries of one look: each finds what stands behind the new lanes of the
	// one before.
	maxRounds = 8
	// New lanes are often made together, of a few rows each. Behind one, up to maxPage entries are
	// read at once, but not more than maxRead by one query.
	maxPage = 400
	maxRead = 4000
	// maxKnown lanes are remembered, and beyond them only those that are due: who invents a million
	// templates for tomorrow must not fill the memory.
	maxKnown = 20_000
)

// Watch is the list of the lanes that have rows in some statuses. It is kept up to date by dives
// into the index, one for each lane, whatever the number of rows: the dive behind a lane finds the
// next one, its first row, and whether a new lane stands between the two. It is not safe for
// concurrent use.
type Watch struct {
	queue  *Queue
	of     []Status
	always []Lane
	room   int           // maxLook
	most   int           // maxKnown
	known  map[Lane]bool // whether a lane is due, by its key
	round  *round        // nil between two rounds
}

// round looks behind each known lane once. As all lanes have a neighbour before them, it finds all.
// Of few lanes one look makes a whole round.
type round struct {
	todo  []Lane        // lanes to look behind
	fresh map[Lane]int  // those of them that were not known, and how many entries to read there
	found map[Lane]bool // known lanes that have rows
	ends  map[Lane]bool // priorities and accounts whose last lane was looked behind
}

// Watch returns a list of the lanes in some statuses. Where a round takes several looks, each of
// them looks at the lanes of always too.
func (q *Queue) Watch(always []Lane, of ...Status) *Watch {
	return &Watch{
		queue: q, of: of, always: always, room: maxLook, most: maxKnown, known: map[Lane]bool{},
	}
}

// Look returns the lanes that have rows, in no order.
func (w *Watch) Look(ctx context.Context) ([]Lane, error) {
	if err := w.look(ctx); err != nil {
		w.round = nil // it has lost what it was just looking behind
		return nil, err
	}
	lanes := slices.Grow([]Lane(nil), len(w.known))
	for l, due := range w.known {
		l.Due = due
		lanes = append(lanes, l)
	}
	return lanes, nil
}

// LookAtAll is Look for a whole round, however many lanes there are.
func (w *Watch) LookAtAll(ctx context.Context) ([]Lane, error) {
	for w.round = nil; ; {
		lanes, err := w.Look(ctx)
		if err != nil || w.round == nil {
			return lanes, err
		}
	}
}

// Drop forgets lanes until they are found again.
func (w *Watch) Drop(lanes []Lane) {
	for _, l := range lanes {
		delete(w.known, l.key())
	}
}

func (w *Watch) look(ctx context.Context) error {
	var d dives
	if w.round == nil {
		d = w.begin()
	}
	for room, queries := w.room, 0; room > 0 && queries < maxRounds; queries++ {
		n := min(room, len(w.round.todo))
		d, room = append(d, w.round.next(n)...), room-n
		found, err := d.lanes(ctx, w.queue)
		if err != nil {
			return err
		}
		for _, lanes := range found {
			w.note(lanes)
		}
		if d = nil; len(w.round.todo) == 0 {
			w.end()
			return nil
		}
	}
	return w.lookAtHeads(ctx)
}

// begin returns the dives that a round begins with.
func (w *Watch) begin() (d dives) {
	w.round = &round{
		todo: slices.Collect(maps.Keys(w.known)), fresh: map[Lane]int{}, found: map[Lane]bool{},
		ends: map[Lane]bool{},
	}
	for _, s := range w.of {
		d = append(d, first(s, 1))
	}
	return d
}

// next returns the dives behind the next n lanes.
func (r *round) next(n int) (d dives) {
	lanes := r.todo[:n]
	r.todo = r.todo[n:]
	page := max(maxRead/(len(r.fresh)+1), 1)
	for _, l := range lanes {
		limit := min(max(r.fresh[l], 1), page)
		delete(r.fresh, l)
		d = append(d, behind(l, samePriority, limit))
		priority, account := l, l
		priority.Template = ""
		account.Template, account.Priority = "", -1<<15 // no TINYINT
		if !r.ends[priority] {
			d = append(d, behind(l, sameAccount, limit))
		}
		if !r.ends[account] {
			d = append(d, behind(l, sameStatus, limit))
		}
		r.ends[priority], r.ends[account] = true, true
	}
	return d
}

// note takes the lanes that one dive found, up to the first that was known: behind that one the
// round looks anyway. Behind the last of the new ones it has to look too.
func (w *Watch) note(lanes []Lane) {
	var last *Lane
	for _, l := range lanes {
		key := l.key()
		_, known := w.known[key]
		if known || l.Due || len(w.known) < w.most {
			w.known[key], w.round.found[key] = l.Due, true
		}
		if known {
			last = nil
			break
		}
		last = &key
	}
	if last != nil {
		// Where a page had one lane, its rows are many: the next one may be alike.
		w.round.fresh[*last] = min(4*len(lanes), maxPage)
		w.round.todo = append([]Lane{*last}, w.round.todo...)
	}
}

// end forgets the lanes that the round did not find.
func (w *Watch) end() {
	maps.DeleteFunc(w.known, func(l Lane, _ bool) bool { return !w.round.found[l] })
	w.round = nil
}

// lookAtHeads looks at the lanes of always.
func (w *Watch) lookAtHeads(ctx context.Context) error {
	d := make(dives, len(w.always))
	for i, l := range w.always {
		d[i] = head(l)
	}
	heads, err := d.lanes(ctx, w.queue)
	if err != nil {
		return err
	}
	for i, found := range heads {
		key := w.always[i].key()
		delete(w.known, key)
		for _, l := range found {
			w.known[key], w.round.found[key] = l.Due, true
		}
	}
	return nil
}
