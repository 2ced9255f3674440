package main

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/pressly/goose/v3"

	"github.com/unionbridge/unionbridge"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
)

const (
	// migrationVersion is the newest migration that changes tables which may be large.
	migrationVersion = 7
	migrationsDir    = "sql/migrations"

	migrationProducers = 2
	migrationLead      = 10 * time.Second // how long the others work before it
)

// migrateBefore makes the schema as it was before a migration.
func (b *bench) migrateBefore(version int64) {
	files, err := fs.Sub(unionbridge.SQL, migrationsDir)
	b.Check(err)
	provider, err := goose.NewProvider(goose.DialectMySQL, b.db.DB.DB, files,
		goose.WithDisableGlobalRegistry(true))
	b.Check(err)
	_, err = provider.UpTo(b.Context(), version-1)
	b.Checkf(err, "migrating to before version %d", version)
}

// migration measures a migration of full tables, statement by statement, and how long others who
// use the tables wait meanwhile.
func (b *bench) migration() {
	n := finishedTimes * b.requests
	b.Step("migration %d: %s requests, half as many archived ones", migrationVersion,
		harness.Count(n))
	rows := finishedRows(n)
	if strings.Contains(b.server, "TiDB") { // which has no UUID_SHORT
		rows.values = strings.ReplaceAll(rows.values, "UUID_SHORT()", "FLOOR(RAND() * 9e15)")
	}
	b.insertCrowd(rows)
	b.archive(n / 2)
	watch := newBystanders(b)
	watch.start()
	b.Sleep(migrationLead)
	begin := time.Now()
	longest := b.migrate()
	end := time.Now()
	b.Sleep(time.Second) // what waited comes to its end
	watch.stop()
	b.record("migration_seconds", end.Sub(begin).Seconds())
	b.record("migration_longest_statement", longest.Seconds())
	b.record("migration_insert", milliseconds(watch.inserts.longest(begin, end)))
	b.record("migration_update", milliseconds(watch.updates.longest(begin, end)))
	before := begin.Add(-migrationLead)
	b.record("migration_insert_before", milliseconds(watch.inserts.longest(before, begin)))
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// archive copies the first n requests into the archive.
func (b *bench) archive(n int) {
	const most = 200_000
	var names []string
	b.db.FetchAll(&names, `
		SELECT a.column_name
		  FROM information_schema.columns a
		  JOIN information_schema.columns r
		    ON r.table_schema = a.table_schema AND r.column_name = a.column_name
		 WHERE a.table_schema = DATABASE() AND a.table_name = 'send_request_archive'
		   AND r.table_name = 'send_request'`)
	columns := strings.Join(names, ", ")
	var last int64
	for left := n; left > 0; left -= most {
		b.Status("%s rows to archive", harness.Count(left))
		var next int64
		b.db.Fetch(&next, `
			SELECT MAX(id)
			  FROM (SELECT id FROM send_request WHERE id > ? ORDER BY id LIMIT ?) page`,
			last, min(left, most))
		b.db.Do("INSERT INTO send_request_archive ("+columns+`)
			SELECT `+columns+`
			  FROM send_request
			 WHERE id > ? AND id <= ?`, last, next)
		last = next
	}
}

// migrate carries out the migration's statements, each timed, and returns the longest time.
func (b *bench) migrate() (longest time.Duration) {
	names, err := fs.Glob(unionbridge.SQL, path.Join(migrationsDir, "*.sql"))
	b.Check(err)
	text, err := fs.ReadFile(unionbridge.SQL, names[migrationVersion-1])
	b.Check(err)
	conn, err := b.db.Connx(b.Context()) // the statements have variables of their session
	b.Check(err)
	defer func() { _ = conn.Close() }()
	for _, s := range migrationSteps(string(text)) {
		begin := time.Now()
		for _, statement := range s.statements {
			_, err := conn.ExecContext(b.Context(), statement)
			b.Checkf(err, "%s", s.name)
		}
		took := time.Since(begin)
		longest = max(longest, took)
		b.Say("%.3f s  %s", took.Seconds(), s.name)
	}
	return longest
}

// migrationStep is what changes one table: a statement, or one that is prepared and those around it.
type migrationStep struct {
	name       string
	statements []string
}

var (
	sqlComment = regexp.MustCompile(`(?m)^\s*--.*$`)
	sqlChange  = regexp.MustCompile(
		`ALTER TABLE \w+|CREATE INDEX \w+|CREATE TABLE IF NOT EXISTS \w+|CREATE OR REPLACE VIEW \w+`)
)

func migrationSteps(text string) (steps []migrationStep) {
	up, _, _ := strings.Cut(text, "-- +goose Down")
	up = sqlComment.ReplaceAllString(up, "")
	for statement := range strings.SplitSeq(up, ";\n") {
		if statement = strings.TrimSpace(statement); statement == "" {
			continue
		}
		if change := sqlChange.FindString(statement); change != "" || len(steps) == 0 {
			steps = append(steps, migrationStep{name: change})
		}
		step := &steps[len(steps)-1]
		step.statements = append(step.statements, statement)
	}
	return steps
}

// bystanders use the tables as producers and a claimer do.
type bystanders struct {
	*bench
	inserts, updates history
	group            *harness.Group
	cancel           context.CancelFunc
}

// history is when statements began and how long they took.
type history struct {
	mu    sync.Mutex
	steps []timedStep
}

type timedStep struct {
	begin time.Time
	took  time.Duration
}

func (h *history) timed(f func() error) error {
	begin := time.Now()
	err := f()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.steps = append(h.steps, timedStep{begin, time.Since(begin)})
	return err
}

// longest is the longest time of those that were under way between two moments.
func (h *history) longest(from, to time.Time) (longest time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.steps {
		if s.begin.Before(to) && s.begin.Add(s.took).After(from) {
			longest = max(longest, s.took)
		}
	}
	return longest
}

func newBystanders(b *bench) *bystanders { return &bystanders{bench: b} }

func (w *bystanders) start() {
	w.group = w.Group(migrationProducers + 1)
	ctx, cancel := context.WithCancel(w.Context())
	w.cancel = cancel
	every := func(pause time.Duration, act func() error) {
		w.group.Go(func(context.Context) {
			for ctx.Err() == nil {
				if err := act(); ctx.Err() == nil {
					w.Check(err)
				}
				select {
				case <-time.After(pause):
				case <-ctx.Done():
				}
			}
		})
	}
	for range migrationProducers {
		every(2*time.Millisecond, func() error { return w.insert(ctx) })
	}
	every(20*time.Millisecond, func() error { return w.claim(ctx) })
}

func (w *bystanders) stop() {
	w.cancel()
	w.group.Wait()
}

func (w *bystanders) insert(ctx context.Context) error {
	return w.inserts.timed(func() error {
		_, err := w.db.ExecContext(ctx, insertQuery, w.users[0].OpenID, harness.Template,
			message("M", 0))
		return err
	})
}

// claim looks for due rows, takes them, and writes that they are sent.
func (w *bystanders) claim(ctx context.Context) error {
	var ids []int64
	err := w.updates.timed(func() error {
		return w.db.SelectContext(ctx, &ids, `
			SELECT id
			  FROM send_request FORCE INDEX (send_request_due)
			 WHERE status = 'pending' AND appid IS NULL AND priority = 1 AND template = ?
			   AND due_at <= CURRENT_TIMESTAMP(3)
			 ORDER BY due_at
			 LIMIT 50`, harness.Template)
	})
	if err != nil || len(ids) == 0 {
		return err
	}
	return errors.Join(
		w.update(ctx, `appid = 'wx', lease = 'bench', attempts = attempts + 1,
			due_at = CURRENT_TIMESTAMP(3) + INTERVAL 60 SECOND`, ids),
		w.update(ctx, `status = 'sent', lease = NULL, finished_at = CURRENT_TIMESTAMP(3)`, ids))
}

func (w *bystanders) update(ctx context.Context, set string, ids []int64) error {
	query, args, err := sqlx.In(`
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET `+set+`
		 WHERE id IN (?)`, slices.Clone(ids))
	if err != nil {
		return err
	}
	return w.updates.timed(func() error {
		_, err := w.db.ExecContext(ctx, query, args...)
		return err
	})
}
