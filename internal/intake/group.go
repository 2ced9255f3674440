package intake

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/database"
)

const (
	// committers write at the same time: while one waits for the disk, the other prepares.
	committers = 2
	// commitTimeout bounds one group's writing, and findTimeout the look afterwards where the answer to
	// a COMMIT was lost. Callers give up after three seconds.
	commitTimeout = 1800 * time.Millisecond
	findTimeout   = 500 * time.Millisecond
	// maxTries bounds how often a group begins again because of others: each time one of them has
	// come further.
	maxTries = 4
)

// job is the messages of one Accept, which wait to be written.
type job struct {
	entries []*entry
	taken   atomic.Bool   // by a committer, or given up by its caller
	done    chan struct{} // closed when the entries have their results
}

// Run writes what is accepted until ctx ends, and finishes what it has begun.
func (in *Intake) Run(ctx context.Context) {
	var running sync.WaitGroup
	for range committers {
		running.Go(func() {
			for {
				select {
				case first := <-in.jobs:
					in.commit(in.group(first))
				case <-ctx.Done():
					return
				}
			}
		})
	}
	running.Wait()
}

// submit hands entries to a committer, and gives each its result. It waits for all, or for the end of
// ctx.
func (in *Intake) submit(ctx context.Context, s applications.Session, entries []*entry) {
	admitted := in.admit(ctx, s, entries)
	if len(admitted) == 0 {
		return
	}
	j := &job{entries: slices.Clone(admitted), done: make(chan struct{})}
	select {
	case in.jobs <- j:
	case <-ctx.Done():
		in.abandon(admitted, unavailable(context.Cause(ctx)))
		return
	}
	select {
	case <-j.done:
		return
	case <-ctx.Done():
	}
	if !j.taken.Swap(true) {
		in.abandon(admitted, unavailable(context.Cause(ctx)))
		return
	}
	// They are being written, and their caller has to be told something now. They belong to the
	// committer, so the caller gets others.
	for i, e := range entries {
		if slices.Contains(admitted, e) {
			entries[i] = &entry{result: Result{Err: ErrUnknown}}
		}
	}
}

// admit returns the entries that the application's limits leave room for. The others have their
// results. A repetition needs no room, so that a caller at the limit can repeat what was not answered.
func (in *Intake) admit(
	ctx context.Context, s applications.Session, entries []*entry,
) (admitted []*entry) {
	r, short := in.cfg.Registry.Reserve(ctx, s, int64(len(entries)))
	admitted = entries
	if short != nil {
		if _, refused := errors.AsType[*applications.Refusal](short); !refused {
			short = unavailable(short)
		}
		admitted = in.unrepeated(ctx, entries)
	}
	room := min(int(r.N), len(admitted))
	spare := r
	spare.N = r.N - int64(room)
	in.cfg.Registry.Cancel(spare)
	r.N = 1
	for _, e := range admitted[:room] {
		e.reservation = r
	}
	for _, e := range admitted[room:] {
		e.result.Err = short
	}
	return admitted[:room]
}

// unrepeated leaves out the entries that are in the table already.
func (in *Intake) unrepeated(ctx context.Context, entries []*entry) []*entry {
	t := &attempt{in: in, all: entries, careful: true}
	t.reset()
	if t.findKeys(ctx, in.cfg.DB) != nil || t.findContent(ctx, in.cfg.DB) != nil {
		return entries // they are looked for again
	}
	return slices.DeleteFunc(slices.Clone(entries), func(e *entry) bool { return e.result.Repeated })
}

func (in *Intake) abandon(entries []*entry, err error) {
	for _, e := range entries {
		in.cfg.Registry.Cancel(e.reservation)
		e.result = Result{Err: err}
	}
}

// group adds to a job those that wait, up to a full statement. It does not wait for any: under load
// they gather while the groups before them are written.
func (in *Intake) group(first *job) []*job {
	jobs := make([]*job, 0, 16)
	n := 0
	for j := first; ; {
		if !j.taken.Swap(true) {
			jobs, n = append(jobs, j), n+len(j.entries)
		}
		if n >= MaxBatch {
			return jobs
		}
		select {
		case j = <-in.jobs:
		default:
			return jobs
		}
	}
}

// commit writes jobs and tells their callers.
func (in *Intake) commit(jobs []*job) {
	var entries []*entry
	for _, j := range jobs {
		entries = append(entries, j.entries...)
	}
	if len(entries) > 0 {
		// Callers may go: what they asked for is written nevertheless, and a repetition finds it.
		ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
		in.write(ctx, entries)
		cancel()
	}
	for _, j := range jobs {
		close(j.done)
	}
}

// write gives each entry its result. An entry that cannot be written stops no other.
func (in *Intake) write(ctx context.Context, entries []*entry) {
	known := false // what is repeated has to be looked for first
	for try := 1; ; try++ {
		t := &attempt{in: in, all: entries, careful: known}
		err := t.run(ctx)
		switch {
		case err == nil:
			t.finish()
			return
		case t.committing.Load():
			in.find(ctx, t, err)
			return
		case try < maxTries && errors.Is(err, applications.ErrTakenBack):
			if entries = in.reserveAgain(ctx, entries); len(entries) == 0 {
				return
			}
			continue
		case try < maxTries && database.IsDuplicate(err):
			known = true // somebody has inserted the same before, or meanwhile: now it can be seen
			continue
		case !database.IsRowError(err):
			in.warn("inserting messages of applications", err)
			in.abandon(entries, unavailable(err))
			return
		case len(entries) == 1:
			in.warn("inserting a message of application "+entries[0].row.Application, err)
			in.abandon(entries, reject(codeKeyword, "data", "argument invalid! the database does not "+
				"take the message"))
			return
		}
		in.write(ctx, entries[:len(entries)/2])
		entries, try = entries[len(entries)/2:], 0
	}
}

// reserveAgain takes new reservations for entries whose old ones may be void, and returns those that
// got one.
func (in *Intake) reserveAgain(ctx context.Context, entries []*entry) (admitted []*entry) {
	byName := make(map[string][]*entry)
	for _, e := range entries {
		in.cfg.Registry.Cancel(e.reservation)
		byName[e.row.Application] = append(byName[e.row.Application], e)
	}
	for _, own := range byName {
		admitted = append(admitted, in.admit(ctx, own[0].session, own)...)
	}
	return admitted
}

// find finds out what became of a COMMIT whose answer was lost. What is not there may still come.
func (in *Intake) find(ctx context.Context, t *attempt, cause error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), findTimeout)
	defer cancel()
	if err := t.readIDs(ctx, in.cfg.DB); err == nil {
		t.finish()
		return
	}
	in.warn("inserting messages of applications: the answer to the COMMIT was lost", cause)
	for _, e := range t.all {
		e.result = Result{Err: ErrUnknown}
	}
}

func (in *Intake) warn(what string, err error) { in.cfg.Logger.Warn(what, "err", err) }
