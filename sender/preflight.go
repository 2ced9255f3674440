package sender

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechat/keyword"
)

// templateLister is what the pre-flight asks WeChat.
type templateLister interface {
	PrivateTemplates(ctx context.Context) ([]wechat.Template, error)
}

const (
	// libraryAge is how old the list of templates may become. WeChat does not say how often it may be asked for; a template's text
	// never changes under its id, so that only deleted ones are noticed late.
	libraryAge = time.Hour
	// libraryRest is the shortest time between two readings, also after a failed one. A list that is younger is fresh.
	libraryRest = time.Minute
	// libraryTimeout bounds one reading, libraryPatience how long the first rows wait for the first one.
	libraryTimeout  = 10 * time.Second
	libraryPatience = 3 * time.Second
	// askAgain is when a row with an unknown template is looked at again while the list is being read.
	askAgain = 3 * time.Second
)

// library is the list of an account's own templates, against which messages are checked before a call is spent (the
// pre-flight). It errs on the side of sending: without a list, for instance because WeChat does not give one, everything
// passes. The zero value never has a list.
type library struct {
	lister  templateLister // nil: no pre-flight
	log     *slog.Logger
	now     func() time.Time
	reading sync.WaitGroup

	mu        sync.Mutex
	templates map[string]*keyword.Set // by id; nil: never read
	readAt    time.Time               // when that list was asked for
	triedAt   time.Time               // when the last reading began; zero: never
	busy      chan struct{}           // closed at the end of the reading that runs; nil: none
	doubted   time.Time               // when WeChat last contradicted a list; zero: never
	absences  map[string]*absence     // of templates that the list lacks, by id
	failing   bool                    // the last reading failed, and it has been logged
}

// open makes the library read its list from now on.
func (l *library) open(lister templateLister, log *slog.Logger, now func() time.Time) {
	l.lister, l.log, l.now = lister, log, now
}

// draft is the part of a message that the pre-flight looks at and may change.
type draft struct {
	templateID string
	values     []keyword.Value
	warnings   []keyword.Problem
}

func (d *draft) warn(problems ...keyword.Problem) { d.warnings = append(d.warnings, problems...) }

func (d *draft) warning() string { return describeProblems(d.warnings) }

// mostProblems are named one by one.
const mostProblems = 20

// describeProblems makes one text of them, for a column; "" of none. It holds keys, never values.
func describeProblems(problems []keyword.Problem) string {
	if len(problems) == 0 {
		return ""
	}
	var texts []string
	for i, p := range problems {
		if i == mostProblems {
			texts = append(texts, fmt.Sprintf("and %d more", len(problems)-i))
			break
		}
		p.Key = clip(p.Key, 60) // a row may carry any key
		texts = append(texts, p.String())
	}
	return clip(strings.Join(texts, "; "), 1000)
}

// inspect checks a draft against its template. It leaves out the keys that the template does not have, and returns a verdict for
// a row that is not to be sent, or not yet.
func (l *library) inspect(ctx context.Context, row request, d *draft) *result {
	if l.lister == nil {
		return nil
	}
	keywords, found := l.look(ctx, d.templateID)
	// What may be under way already is repeated as it is, or given up by the rules of its outcome.
	repeated := row.UncertainAge.Valid
	if found == absent && !repeated {
		found = l.judge(d.templateID)
	}
	switch {
	case found == unchecked || repeated && found != listed:
		return nil
	case found == beingRead:
		r := row.release(askAgain)
		r.reason, r.errmsg = row.Reason.String, "the account's templates are being read again, to look for this one"
		return &r
	case found == absent:
		return row.templateAbsent(d.templateID)
	case found == gone:
		return row.templateGone(d.templateID)
	case keywords.Empty():
		return nil
	}
	d.leaveOut(keywords)
	d.warn(keywords.Doubts(d.values)...)
	problems := keywords.Check(d.values)
	if len(problems) == 0 || repeated {
		return nil
	}
	r := row.end(statusFailed, reasonBadKeyword, describeProblems(problems))
	return &r
}

// leaveOut drops the values that the template has no place for: nobody would see them, and whether WeChat ignores or refuses
// them is not known.
func (d *draft) leaveOut(keywords *keyword.Set) {
	d.values = slices.DeleteFunc(d.values, func(v keyword.Value) bool {
		switch {
		case keywords.Has(v.Key):
			return false
		case v.Key == "first" || v.Key == "remark":
			d.warn(keyword.NotShown(v.Key))
		default:
			d.warn(keyword.Problem{Key: v.Key, Rule: "is no keyword of the template and was left out"})
		}
		return true
	})
}

// finding is what the library says about a template.
type finding int

const (
	unchecked finding = iota // nothing that keeps its messages: there is no list, or none that is new enough, or WeChat is asked
	listed
	beingRead // not in the list, but a newer one is on its way
	absent    // not in a fresh list
	gone      // not in a fresh list, and WeChat has denied it too
)

// look finds a template. It waits for the first list, for a short time; later ones are read in the background.
func (l *library) look(ctx context.Context, id string) (*keyword.Set, finding) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.triedAt.IsZero() && l.read(ctx) {
		l.await(ctx)
	}
	now := l.now()
	keywords := l.templates[id]
	switch {
	case l.templates == nil:
		l.read(ctx)
		return nil, unchecked
	case keywords != nil || l.isKnown(id):
		if l.doubtful() || now.Sub(l.readAt) >= libraryAge {
			l.read(ctx)
		}
		if keywords == nil {
			return nil, unchecked
		}
		return keywords, listed
	case now.Sub(l.readAt) < libraryRest:
		return nil, absent
	case l.read(ctx):
		return nil, beingRead
	}
	return nil, unchecked // the list is old, and the attempt to read a newer one has just failed
}

// doubtful reports whether WeChat has contradicted the list since it was asked for. The lock is held.
func (l *library) doubtful() bool { return !l.doubted.IsZero() && !l.doubted.Before(l.readAt) }

// await waits for the reading that runs, with the lock released.
func (l *library) await(ctx context.Context) {
	busy := l.busy
	l.mu.Unlock()
	defer l.mu.Lock()
	ctx, cancel := context.WithTimeout(ctx, libraryPatience)
	defer cancel()
	select {
	case <-busy:
	case <-ctx.Done():
	}
}

// read begins to read the list unless that has just been tried, and reports whether a reading is running. The lock is held.
func (l *library) read(ctx context.Context) bool {
	now := l.now()
	if l.busy != nil {
		return true
	}
	if !l.triedAt.IsZero() && now.Sub(l.triedAt) < libraryRest {
		return false
	}
	l.triedAt = now
	done := make(chan struct{})
	l.busy = done
	l.reading.Go(func() {
		defer close(done)
		l.store(ctx, now)
	})
	return true
}

// store reads the list and puts it into the library.
func (l *library) store(ctx context.Context, begin time.Time) {
	reading, cancel := context.WithTimeout(ctx, libraryTimeout)
	defer cancel()
	list, err := l.lister.PrivateTemplates(reading)
	if err == nil && len(list) == 0 {
		// WeChat says the same to every message then, if it is true.
		err = fmt.Errorf("the list is empty")
	}
	templates := make(map[string]*keyword.Set, len(list))
	for _, t := range list {
		templates[t.ID] = keyword.Parse(t.Content)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy = nil
	switch {
	case err != nil && ctx.Err() != nil: // stopped; the next owner of the account's lease need not wait
		l.triedAt = time.Time{}
	case err != nil && !l.failing:
		l.failing = true
		l.log.Warn("reading the account's templates: messages are sent without a check, or by an older list", "err", err)
	case err == nil:
		l.templates, l.readAt, l.failing = templates, begin, false
		l.forget(begin)
	}
}

// wait returns when no reading runs any more. The context of the last look must have ended, or it takes as long as WeChat.
func (l *library) wait() {
	l.reading.Wait()
}
