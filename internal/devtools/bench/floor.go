package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

// The floor under a first sweep on this machine: what the simulator and the server take for the same work
// when nobody reads, sorts, compares or thinks. First the same answers are downloaded and thrown away, then
// the same rows go through multi-row INSERT alone. Everything else (reading the list, the statements'
// text) is prepared outside the time that counts, and kept in memory: about 300 bytes a follower.
const (
	floorConnections = 2
	floorRows        = 1000 // a statement
)

type floor struct {
	bench      *bench
	script     *script
	cursors    []string // of the list's pages, in order
	openids    []string // in order of the key, as the sweep asks
	statements []string
}

// measureFloor returns followers a second.
func (b *bench) measureFloor(ctx context.Context) (rate float64, err error) {
	b.screen.Step("floor: the same answers downloaded, then the same rows inserted, and nothing else")
	s, err := b.newScript(ctx, sweepQuestions)
	if err != nil {
		return 0, err
	}
	s.read.Store(0) // without the token
	f := &floor{bench: b, script: s}
	if err := f.list(ctx); err != nil {
		return 0, err
	}
	if err := f.write(ctx); err != nil {
		return 0, err
	}
	wanted := s.read.Swap(0)
	begin := time.Now()
	if err := f.download(ctx); err != nil {
		return 0, err
	}
	download := time.Since(begin)
	if got := s.read.Load(); got != wanted {
		return 0, fmt.Errorf("the floor's download was of %d bytes, the answers have %d", got, wanted)
	}
	insert, err := f.insert(ctx)
	if err != nil {
		return 0, err
	}
	b.screen.Say("%.1f s for %.0f MiB of answers, %.1f s for the rows", download.Seconds(), mebibytes(wanted), insert.Seconds())
	return float64(b.size) / (download + insert).Seconds(), nil
}

func (f *floor) list(ctx context.Context) error {
	for cursor := ""; ; {
		f.cursors = append(f.cursors, cursor)
		var page followerPage
		if err := f.script.get(ctx, pathList, url.Values{"next_openid": {cursor}}, &page); err != nil {
			return err
		}
		if len(page.Data.OpenID) == 0 {
			slices.Sort(f.openids)
			return nil
		}
		f.openids = append(f.openids, page.Data.OpenID...)
		cursor = page.Next
	}
}

func question(openids []string) string {
	return `{"user_list":[{"openid":"` + strings.Join(openids, `"},{"openid":"`) + `"}]}`
}

// write asks about everybody once and turns the answers into statements.
func (f *floor) write(ctx context.Context) error {
	f.statements = make([]string, ceil(len(f.openids), floorRows))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(sweepQuestions)
	for i := range f.statements {
		group.Go(func() error {
			openids := f.openids[i*floorRows : min((i+1)*floorRows, len(f.openids))]
			var people []followerInfo
			for batch := range slices.Chunk(openids, 100) {
				var answer struct {
					People []followerInfo `json:"user_info_list"`
				}
				if err := f.script.postText(ctx, pathBatch, question(batch), &answer); err != nil {
					return err
				}
				people = append(people, answer.People...)
			}
			if len(people) != len(openids) {
				return errors.New("the floor got other people than it asked about")
			}
			f.statements[i] = insertText(people)
			return nil
		})
	}
	return group.Wait()
}

// insertText is a statement with the columns that the sweep writes.
func insertText(people []followerInfo) string {
	var text strings.Builder
	text.WriteString(`INSERT INTO floor_follower (appid, openid, unionid, subscribed, subscribe_time, subscribe_scene, qr_scene, ` +
		`qr_scene_str, remark, groupid, tagid_list, language, info_at) VALUES `)
	separator := ""
	for _, p := range people {
		fmt.Fprintf(&text, "%s('%s','%s',%s,1,'%s',%s,%d,%s,%s,%d,%s,%s,CURRENT_TIMESTAMP(3))", separator, stage.AppID, p.OpenID,
			literal(p.UnionID), time.Unix(p.Time, 0).UTC().Format(time.DateTime), literal(p.Scene), p.QRScene,
			literal(p.QRStr), literal(p.Remark), p.Group, literal(tags(p.Tags)), literal(p.Language))
		separator = ","
	}
	return text.String()
}

// literal: the sweep stores NULL where WeChat says nothing.
func literal(s string) string {
	if s == "" {
		return "NULL"
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

func tags(list []byte) string {
	if string(list) == "[]" {
		return ""
	}
	return string(list)
}

// download makes the sweep's calls: the list page after page, then the batches.
func (f *floor) download(ctx context.Context) error {
	for _, cursor := range f.cursors {
		if err := f.script.get(ctx, pathList, url.Values{"next_openid": {cursor}}, nil); err != nil {
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(sweepQuestions)
	for batch := range slices.Chunk(f.openids, 100) {
		group.Go(func() error { return f.script.postText(ctx, pathBatch, question(batch), nil) })
	}
	return group.Wait()
}

// insert stores the rows and returns how long that took.
func (f *floor) insert(ctx context.Context) (took time.Duration, err error) {
	db := f.bench.db
	if _, err := db.ExecContext(ctx, "CREATE TABLE floor_follower LIKE follower"); err != nil {
		return 0, fmt.Errorf("making the floor's table: %w", err)
	}
	begin := time.Now()
	group, inserting := errgroup.WithContext(ctx)
	group.SetLimit(floorConnections)
	for _, text := range f.statements {
		group.Go(func() error {
			_, err := db.ExecContext(inserting, text)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return 0, fmt.Errorf("inserting the floor's rows: %w", err)
	}
	took = time.Since(begin)
	var rows int
	if err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM floor_follower").Scan(&rows); err != nil {
		return 0, fmt.Errorf("counting the floor's rows: %w", err)
	}
	if rows != f.bench.size {
		return 0, fmt.Errorf("the floor stored %d of %d rows", rows, f.bench.size)
	}
	if _, err := db.ExecContext(ctx, "DROP TABLE floor_follower"); err != nil {
		return 0, fmt.Errorf("dropping the floor's table: %w", err)
	}
	return took, nil
}
