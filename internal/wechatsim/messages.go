package wechatsim

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	storeShards     = 16
	repeatWindow    = 10 * time.Minute // of client_msg_id by default, reference §4.1
	duplicateWindow = time.Minute      // of 40241, reference §4.2
)

// Message is one that was accepted and, as far as the simulator is concerned, reached the person.
type Message struct {
	AppID       string          `json:"appid"`
	OpenID      string          `json:"openid"`
	UnionID     string          `json:"unionid,omitempty"` // by the binding at the time of reading
	Person      int             `json:"person"`
	TemplateID  string          `json:"template_id"`
	Data        json.RawMessage `json:"data,omitempty"` // as it was sent
	URL         string          `json:"url,omitempty"`
	MiniProgram json.RawMessage `json:"miniprogram,omitempty"` // as it was sent
	ClientMsgID string          `json:"client_msg_id,omitempty"`
	Page        string          `json:"page,omitempty"` // of a subscribe message, as the next
	Lang        string          `json:"lang,omitempty"`
	State       string          `json:"miniprogram_state,omitempty"`
	MsgID       int64           `json:"msgid"`
	Time        time.Time       `json:"time"`
}

// store holds what an account delivered, spread over shards by person so that senders do not wait
// for each other.
type store struct {
	shards  [storeShards]shard
	count   atomic.Int64
	repeats atomic.Int64
}

type shard struct {
	mu      sync.Mutex
	entries []entry
	sent    window[clientKey, int64]
	recent  window[recentKey, struct{}]
}

type clientKey struct {
	person int
	id     string
}

type recentKey struct {
	person int
	hash   uint64
}

// entry is a stored message. text holds template id, client id, lang, state, page or url, link and
// data, one behind the other: one allocation.
type entry struct {
	msgid  int64
	at     int64 // unix nanoseconds
	person int
	text   []byte
	cuts   [partData]int32
}

// The parts of an entry's text.
const (
	partTemplate = iota
	partClientID
	partLang
	partState
	partTarget // page or url
	partLink
	partData
)

func (s *store) init(repeats time.Duration) {
	for i := range s.shards {
		s.shards[i].sent.life = repeats
		s.shards[i].recent.life = duplicateWindow
	}
}

func (s *store) shard(person int) *shard { return &s.shards[mix(uint64(person))%storeShards] }

// remember notes a client_msg_id and returns the msgid under which the person had it within the
// last ten minutes ([Options].RepeatWindow), or 0.
func (s *store) remember(person int, id []byte, msgid int64, now time.Time) (earlier int64) {
	shard := s.shard(person)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	earlier, again := shard.sent.note(clientKey{person, string(id)}, msgid, now)
	if again {
		s.repeats.Add(1)
	}
	return earlier
}

// fresh notes a message's content and reports whether the person did not have it within the last
// minute.
func (s *store) fresh(person int, hash uint64, now time.Time) bool {
	shard := s.shard(person)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	_, again := shard.recent.note(recentKey{person, hash}, struct{}{}, now)
	return !again
}

func (s *store) add(c *call, person int, msgid int64) {
	s.count.Add(1)
	if c.s.keep == KeepCounts {
		return
	}
	r := &c.send
	parts := [...][]byte{partTemplate: r.template, partClientID: r.clientID, partLang: r.lang,
		partState: r.state, partTarget: r.url, partLink: r.link, partData: r.data}
	if c.app.mini {
		parts[partTarget] = r.page
	}
	if c.s.keep == KeepHeads {
		parts[partTarget], parts[partLink], parts[partData] = nil, nil, nil
	}
	e := entry{msgid: msgid, at: c.now.UnixNano(), person: person, text: bytes.Join(parts[:], nil)}
	end := 0
	for i := range e.cuts {
		end += len(parts[i])
		e.cuts[i] = int32(end)
	}
	shard := s.shard(person)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	shard.entries = append(shard.entries, e)
}

func (s *store) all() []entry {
	var entries []entry
	for i := range s.shards {
		shard := &s.shards[i]
		shard.mu.Lock()
		entries = append(entries, shard.entries...)
		shard.mu.Unlock()
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.msgid, b.msgid) })
	return entries
}

func (s *store) clear() {
	for i := range s.shards {
		shard := &s.shards[i]
		shard.mu.Lock()
		shard.entries = nil
		shard.mu.Unlock()
	}
	s.count.Store(0)
	s.repeats.Store(0)
}

func (a *app) message(e entry) Message {
	part := func(i int) []byte {
		from, to := int32(0), int32(len(e.text))
		if i > 0 {
			from = e.cuts[i-1]
		}
		if i < len(e.cuts) {
			to = e.cuts[i]
		}
		return e.text[from:to:to]
	}
	m := Message{
		AppID: a.id, OpenID: a.ids.id(e.person), UnionID: a.unionID(e.person), Person: e.person,
		TemplateID: string(part(partTemplate)), ClientMsgID: string(part(partClientID)),
		Lang: string(part(partLang)), State: string(part(partState)),
		MsgID: e.msgid, Time: time.Unix(0, e.at).UTC(),
	}
	if m.URL = string(part(partTarget)); a.mini {
		m.URL, m.Page = "", m.URL
	}
	if link := part(partLink); len(link) > 0 {
		m.MiniProgram = link
	}
	if data := part(partData); len(data) > 0 {
		m.Data = data
	}
	return m
}

// Messages returns what an account delivered, in the order in which the msgids were given out. With
// [KeepCounts] it is empty; use [Server.Delivered].
func (s *Server) Messages(appid string) []Message {
	a := s.mustApp(appid)
	entries := a.store.all()
	messages := make([]Message, len(entries))
	for i, e := range entries {
		messages[i] = a.message(e)
	}
	return messages
}

// Delivered counts an account's messages, and the accepted sends that delivered nothing because
// their client_msg_id was a repetition.
func (s *Server) Delivered(appid string) (messages, repeats int64) {
	a := s.mustApp(appid)
	return a.store.count.Load(), a.store.repeats.Load()
}

// window remembers keys for a time. It keeps two generations and drops the older one whole, so it
// never has to search for what is old.
type window[K comparable, V any] struct {
	life         time.Duration
	young, old   map[K]noted[V]
	lastRotation time.Time
}

type noted[V any] struct {
	value V
	at    time.Time
}

// note stores a value unless the key has a living one, which it returns.
func (w *window[K, V]) note(key K, value V, now time.Time) (earlier V, again bool) {
	if w.young == nil || now.Sub(w.lastRotation) >= w.life {
		w.young, w.old, w.lastRotation = make(map[K]noted[V]), w.young, now
	}
	for _, generation := range []map[K]noted[V]{w.young, w.old} {
		if n, ok := generation[key]; ok && now.Sub(n.at) < w.life {
			return n.value, true
		}
	}
	w.young[key] = noted[V]{value, now}
	return earlier, false
}
