package wechatsim

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	pushDeadline  = 5 * time.Second // reference §10.2
	pushRetryWait = 5 * time.Second
	pushWorkers   = 8
)

// pushJob is one push, as it will be sent however often.
type pushJob struct {
	callback                *Callback
	appid, original, openid string
	body                    string
	timestamp, nonce        string
	salt                    uint64 // of the encryption
	attempts                int    // left
	due                     time.Time
}

// pusher delivers events when they fall due. Its goroutines start with the first push, so that a
// server without callbacks has none. Due times are of the real clock: a receiver is a real server.
type pusher struct {
	client        *http.Client
	log           *slog.Logger
	taken, failed atomic.Int64
	open          atomic.Int64 // neither taken nor given up yet

	mu      sync.Mutex
	queue   pushQueue
	running bool
	closed  bool
	stop    context.CancelFunc
	wake    chan struct{}
	done    sync.WaitGroup
}

func newPusher(client *http.Client, log *slog.Logger) *pusher {
	return &pusher{client: client, log: log, wake: make(chan struct{}, 1)}
}

func (p *pusher) add(job pushJob, delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	job.due = time.Now().Add(delay)
	p.open.Add(1)
	heap.Push(&p.queue, job)
	if !p.running {
		p.start()
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// start wants mu held.
func (p *pusher) start() {
	ctx, stop := context.WithCancel(context.Background())
	p.running, p.stop = true, stop
	work := make(chan pushJob)
	p.done.Go(func() { p.dispatch(ctx, work) })
	for range pushWorkers {
		p.done.Go(func() {
			for job := range work {
				p.deliver(ctx, job)
			}
		})
	}
}

func (p *pusher) close() {
	p.mu.Lock()
	p.closed = true
	stop := p.stop
	p.mu.Unlock()
	if stop != nil {
		stop()
	}
	p.done.Wait()
}

func (p *pusher) dispatch(ctx context.Context, work chan<- pushJob) {
	defer close(work)
	for {
		job, wait := p.next()
		if wait > 0 {
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-p.wake:
			case <-ctx.Done():
			}
			timer.Stop()
			if ctx.Err() != nil {
				return
			}
			continue
		}
		select {
		case work <- job:
		case <-ctx.Done():
			return
		}
	}
}

// next takes the job that is due, or says how long to wait.
func (p *pusher) next() (pushJob, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		return pushJob{}, time.Hour // add wakes
	}
	if wait := time.Until(p.queue[0].due); wait > 0 {
		return pushJob{}, wait
	}
	return heap.Pop(&p.queue).(pushJob), 0
}

// deliver makes one attempt and queues the next one if it fails.
func (p *pusher) deliver(ctx context.Context, job pushJob) {
	defer p.open.Add(-1) // after the next attempt has been added
	err := p.post(ctx, job)
	if err == nil {
		p.taken.Add(1)
		return
	}
	if job.attempts--; job.attempts > 0 {
		p.add(job, cmp.Or(job.callback.RetryWait, pushRetryWait))
		return
	}
	p.failed.Add(1)
	p.log.Warn("giving up an event push", "appid", job.appid, "error", err)
}

func (p *pusher) post(ctx context.Context, job pushJob) error {
	ctx, cancel := context.WithTimeout(ctx, pushDeadline)
	defer cancel()
	target, body, err := job.request()
	if err != nil {
		return fmt.Errorf("building the push: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("building the push: %w", err)
	}
	request.Header.Set("Content-Type", job.contentType())
	response, err := p.client.Do(request)
	if err != nil {
		return fmt.Errorf("pushing: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("answer with status %d", response.StatusCode)
	}
	if text := strings.TrimSpace(string(answer)); text != "" && text != "success" &&
		!strings.HasPrefix(text, "<xml>") {
		return fmt.Errorf("answer that is neither empty nor success: %.80q", text)
	}
	return nil
}

func (j *pushJob) contentType() string {
	if j.callback.Format == FormatXML {
		return "text/xml"
	}
	return "application/json"
}

// request signs the push and, in the safe modes, encrypts it.
func (j *pushJob) request() (target string, body []byte, err error) {
	query := url.Values{
		"signature": {sign(j.callback.Token, j.timestamp, j.nonce)}, "timestamp": {j.timestamp},
		"nonce": {j.nonce}, "openid": {j.openid},
	}
	body = []byte(j.body)
	if j.callback.Secure || j.callback.Compatible {
		secret, err := encrypt(j.callback.AESKey, j.appid, j.body, j.salt)
		if err != nil {
			return "", nil, err
		}
		query.Set("encrypt_type", "aes")
		query.Set("msg_signature", sign(j.callback.Token, j.timestamp, j.nonce, secret))
		body = j.envelope(secret)
	}
	separator := "?"
	if strings.Contains(j.callback.URL, "?") {
		separator = "&"
	}
	return j.callback.URL + separator + query.Encode(), body, nil
}

// envelope is the encrypted form, and in compatible mode the plain one beside it.
func (j *pushJob) envelope(secret string) []byte {
	if j.callback.Format == FormatXML {
		element := "<Encrypt><![CDATA[" + secret + "]]></Encrypt>\n</xml>"
		if j.callback.Compatible {
			return []byte(strings.TrimSuffix(j.body, "</xml>") + element)
		}
		return []byte("<xml><ToUserName><![CDATA[" + j.original + "]]></ToUserName>\n" + element)
	}
	member := `,"Encrypt":"` + secret + `"}`
	if j.callback.Compatible {
		return []byte(strings.TrimSuffix(j.body, "}") + member)
	}
	return []byte(`{"ToUserName":"` + j.original + `"` + member)
}

// pushQueue is a heap by due time.
type pushQueue []pushJob

func (q pushQueue) Len() int           { return len(q) }
func (q pushQueue) Less(i, k int) bool { return q[i].due.Before(q[k].due) }
func (q pushQueue) Swap(i, k int)      { q[i], q[k] = q[k], q[i] }
func (q *pushQueue) Push(job any)      { *q = append(*q, job.(pushJob)) }
func (q *pushQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}
