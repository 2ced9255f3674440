package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/harness"
)

const (
	doorRounds  = 3
	doorBatch   = 500
	doorClients = 64
	// doorProducers insert single rows beside which the single messages are held.
	doorProducers = 8
	// doorTime is how long single rows are inserted, and single messages posted, in each round.
	doorTime = 5 * time.Second
)

// door measures how messages come in by the native door, and the same rows by INSERT. They are due
// next week, so that nothing is sent meanwhile.
func (b *bench) door() {
	n := max(doorBatch, b.requests/4/doorBatch*doorBatch)
	defer b.flushCommits()()
	b.instance.Settings.Door = b.FreeAddr()
	b.startDaemon(unlimited, concurrency)
	client := newDoorClient(b)
	var insertBatch, batch, insertSingle, single []float64
	var rows int64
	for round := range doorRounds {
		b.Step("round %d of %d: %s messages in batches of %d, then single ones for %s", round+1, doorRounds,
			harness.Count(n), doorBatch, doorTime)
		insertBatch = append(insertBatch, b.perSecond(n, func() { b.insertDoorRows(round, n) }))
		batch = append(batch, b.perSecond(n, func() { client.postBatches(round, n) }))
		begin := time.Now()
		inserted := b.insertDoorRowsFor(round, doorTime)
		insertSingle = append(insertSingle, float64(inserted)/time.Since(begin).Seconds())
		begin = time.Now()
		posted := client.postFor(doorTime, 0)
		single = append(single, float64(len(posted))/time.Since(begin).Seconds())
		rows += int64(2*n) + inserted + int64(len(posted))
	}
	b.record("door_insert_batch", median(insertBatch))
	b.record("door_batch", median(batch))
	b.record("door_batch_ratio", median(batch)/median(insertBatch))
	b.record("door_insert_single", median(insertSingle))
	b.record("door_single", median(single))
	b.record("door_single_ratio", median(single)/median(insertSingle))
	latencies := client.postFor(2*doorTime, median(single)/2)
	rows += int64(len(latencies))
	slices.Sort(latencies)
	b.recordMillis("door_p99", latencies, 0.99)
	b.recordMemory("door_memory", b.daemon.PeakMemory())
	b.record("door_lost", float64(max(rows-b.lastRows(), b.lastRows()-rows)))
	b.stopDaemon()
	b.instance.Settings.Door = ""
}

// flushCommits lets the server write each COMMIT to the disk, as those do that must lose none. The
// returned function sets it back.
func (b *bench) flushCommits() (reset func()) {
	const set = "SET GLOBAL innodb_flush_log_at_trx_commit = "
	var before int64
	err := b.database.Admin.GetContext(b.Context(), &before, "SELECT @@GLOBAL.innodb_flush_log_at_trx_commit")
	if err != nil { // not InnoDB's
		return func() {}
	}
	b.database.Admin.Do(set + "1")
	b.Say("innodb_flush_log_at_trx_commit is 1 from here on")
	return func() { b.database.Admin.Do(fmt.Sprint(set, before)) }
}

func (b *bench) lastRows() int64 { return b.db.Count(`SELECT COUNT(*) FROM send_request`) }

// perSecond returns how many of n fn did a second.
func (b *bench) perSecond(n int, fn func()) float64 {
	begin := time.Now()
	fn()
	return float64(n) / time.Since(begin).Seconds()
}

const doorColumns = ` (mini_appid, mini_openid, template, data, due_at, dedup_key, application)`

// doorRow is what the door makes of a message.
func (b *bench) doorRow(kind string, i int) []any {
	return []any{harness.MiniAppID, b.users[i%len(b.users)].OpenID, harness.Template, message(kind, i),
		nextWeek(), doorKey(kind, i), "shop"}
}

// doorKey is as the door's keys are: a hash, and so anywhere in the index.
func doorKey(kind string, i int) string {
	sum := sha256.Sum256([]byte(order(kind, i)))
	return "door:" + base64.RawURLEncoding.EncodeToString(sum[:])
}

func nextWeek() time.Time { return time.Now().Add(7 * 24 * time.Hour).UTC().Truncate(time.Second) }

func (b *bench) insertDoorRows(round, n int) {
	query := `INSERT INTO send_request` + doorColumns + ` VALUES (?, ?, ?, ?, ?, ?, ?)` +
		strings.Repeat(`, (?, ?, ?, ?, ?, ?, ?)`, doorBatch-1)
	for first := 0; first < n; first += doorBatch {
		args := make([]any, 0, 7*doorBatch)
		for i := range doorBatch {
			args = append(args, b.doorRow(fmt.Sprint("D", round), first+i)...)
		}
		b.db.Do(query, args...)
	}
}

func (b *bench) insertDoorRowsFor(round int, d time.Duration) int64 {
	var inserted atomic.Int64
	end := time.Now().Add(d)
	group := b.Group(doorProducers)
	for producer := range doorProducers {
		insert := b.database.Client().Prepared(
			`INSERT INTO send_request` + doorColumns + ` VALUES (?, ?, ?, ?, ?, ?, ?)`)
		group.Go(func(context.Context) {
			for i := producer; time.Now().Before(end); i += doorProducers {
				insert(b.doorRow(fmt.Sprint("E", round), i)...)
				inserted.Add(1)
			}
		})
	}
	group.Wait()
	return inserted.Load()
}

// doorClient posts messages to the native door.
type doorClient struct {
	b    *bench
	http *http.Client
	next atomic.Int64 // number of a message, which is in its key
}

func newDoorClient(b *bench) *doorClient {
	return &doorClient{b: b, http: &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: doorClients}, Timeout: 10 * time.Second,
	}}
}

// message is the body of one message.
func (c *doorClient) message(kind string, i int) map[string]any {
	return map[string]any{
		"recipient": map[string]string{
			"mini_appid": harness.MiniAppID, "mini_openid": c.b.users[i%len(c.b.users)].OpenID,
		},
		"template": harness.Template, "data": text(kind, i), "due_at": nextWeek(),
		"key": order(kind, i),
	}
}

// post returns how many messages were accepted.
func (c *doorClient) post(body any) int {
	text, err := json.Marshal(body)
	c.b.Check(err)
	req, err := http.NewRequestWithContext(c.b.Context(), http.MethodPost,
		"http://"+c.b.instance.Settings.Door+"/v1/messages", bytes.NewReader(text))
	c.b.Check(err)
	req.Header.Set("Authorization", "Bearer "+harness.DoorSecret)
	resp, err := c.http.Do(req)
	c.b.Checkf(err, "posting messages")
	answer, err := io.ReadAll(resp.Body)
	c.b.Checkf(err, "posting messages")
	c.b.Check(resp.Body.Close())
	var got struct {
		ID      int64 `json:"id"`
		Results []struct {
			ID int64 `json:"id"`
		} `json:"results"`
	}
	if json.Unmarshal(answer, &got) != nil || resp.StatusCode > http.StatusCreated {
		c.b.Fatalf("the door answered %d: %s", resp.StatusCode, answer)
	}
	accepted := 0
	if got.ID > 0 {
		accepted++
	}
	for _, r := range got.Results {
		if r.ID > 0 {
			accepted++
		}
	}
	return accepted
}

func (c *doorClient) postBatches(round, n int) {
	for first := 0; first < n; first += doorBatch {
		messages := make([]any, doorBatch)
		for i := range messages {
			messages[i] = c.message(fmt.Sprint("F", round), first+i)
		}
		if got := c.post(map[string]any{"messages": messages}); got != doorBatch {
			c.b.Fatalf("%d of %d messages were accepted", got, doorBatch)
		}
	}
}

// postFor posts single messages for a while, as fast as the clients can, or at a rate a second. It
// returns the time that each took, from the moment at which it should have begun.
func (c *doorClient) postFor(d time.Duration, rate float64) (took []time.Duration) {
	var mu sync.Mutex
	begin := time.Now()
	var turn atomic.Int64
	group := c.b.Group(doorClients)
	for range doorClients {
		group.Go(func(context.Context) {
			for {
				at := time.Now()
				if rate > 0 {
					at = begin.Add(time.Duration(float64(turn.Add(1)) / rate * float64(time.Second)))
					time.Sleep(time.Until(at))
				}
				if at.Sub(begin) >= d {
					return
				}
				c.post(c.message("G", int(c.next.Add(1))))
				mu.Lock()
				took = append(took, time.Since(at))
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return took
}
