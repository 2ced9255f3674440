package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/harness"
)

// The floor under a first sweep on this machine: what the simulator and the server take for the
// same work when nothing reads, sorts or compares. First the same answers are downloaded and thrown
// away, then the same rows go through multi-row INSERT alone. Everything else (reading the list,
// the statements' text) is prepared outside the time that counts, and kept in memory: about 300
// bytes a follower.
const (
	floorConnections = 2
	floorRows        = 1000 // a statement
)

type floor struct {
	*bench
	script     *script
	cursors    []string // of the list's pages, in order
	openids    []string // in order of the key, as the sweep asks
	statements []string
}

func (b *bench) floor() float64 {
	b.Step("floor: the same answers downloaded, then the same rows inserted, and nothing else")
	f := &floor{bench: b, script: b.newScript(batchgets)}
	f.script.read.Store(0) // without the token
	f.list()
	f.write()
	wanted := f.script.read.Swap(0)
	begin := time.Now()
	f.download()
	download := time.Since(begin)
	if got := f.script.read.Load(); got != wanted {
		b.Fatalf("the floor's download was of %d bytes, the answers have %d", got, wanted)
	}
	insert := f.insert()
	b.Say("%.1f s for %.0f MiB of answers, %.1f s for the rows", download.Seconds(), mebibytes(wanted), insert.Seconds())
	return float64(b.size) / (download + insert).Seconds()
}

func (f *floor) list() {
	for cursor := ""; ; {
		f.cursors = append(f.cursors, cursor)
		var page followerPage
		f.script.get(harness.PathList, "next_openid="+cursor, &page)
		if len(page.Data.OpenID) == 0 {
			slices.Sort(f.openids)
			return
		}
		f.openids = append(f.openids, page.Data.OpenID...)
		cursor = page.Next
	}
}

func userList(openids []string) string {
	return `{"user_list":[{"openid":"` + strings.Join(openids, `"},{"openid":"`) + `"}]}`
}

func (f *floor) write() {
	chunks := slices.Collect(slices.Chunk(f.openids, floorRows))
	f.statements = make([]string, len(chunks))
	group := f.Group(batchgets)
	for i, openids := range chunks {
		group.Go(func(ctx context.Context) {
			var people []followerInfo
			for batch := range slices.Chunk(openids, 100) {
				var answer struct {
					refusal
					People []followerInfo `json:"user_info_list"`
				}
				f.script.post(ctx, harness.PathBatch, userList(batch), &answer)
				people = append(people, answer.People...)
			}
			if len(people) != len(openids) {
				f.Fatalf("the floor got other people than it looked up")
			}
			f.statements[i] = insertText(people)
		})
	}
	group.Wait()
}

func insertText(people []followerInfo) string {
	var text strings.Builder
	text.WriteString(`INSERT INTO floor_follower (appid, openid, unionid, subscribed, ` +
		`subscribe_time, subscribe_scene, qr_scene, qr_scene_str, remark, groupid, tagid_list, ` +
		`language, info_at) VALUES `)
	separator := ""
	for _, p := range people {
		if string(p.Tags) == "[]" {
			p.Tags = nil
		}
		fmt.Fprintf(&text, "%s('%s','%s',%s,1,'%s',%s,%d,%s,%s,%d,%s,%s,CURRENT_TIMESTAMP(3))",
			separator, harness.AppID, p.OpenID, literal(p.UnionID),
			time.Unix(p.Time, 0).UTC().Format(time.DateTime), literal(p.Scene), p.QRScene,
			literal(p.QRStr), literal(p.Remark), p.Group, literal(string(p.Tags)),
			literal(p.Language))
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

func (f *floor) download() {
	for _, cursor := range f.cursors {
		f.script.get(harness.PathList, "next_openid="+cursor, nil)
	}
	group := f.Group(batchgets)
	for batch := range slices.Chunk(f.openids, 100) {
		group.Go(func(ctx context.Context) {
			f.script.post(ctx, harness.PathBatch, userList(batch), nil)
		})
	}
	group.Wait()
}

func (f *floor) insert() time.Duration {
	f.db.Do("CREATE TABLE floor_follower LIKE follower")
	begin := time.Now()
	group := f.Group(floorConnections)
	for _, text := range f.statements {
		group.Go(func(context.Context) { f.db.Do(text) })
	}
	group.Wait()
	took := time.Since(begin)
	if rows := f.db.Count("SELECT COUNT(*) FROM floor_follower"); rows != int64(f.size) {
		f.Fatalf("the floor stored %d of %d rows", rows, f.size)
	}
	f.db.Do("DROP TABLE floor_follower")
	return took
}
