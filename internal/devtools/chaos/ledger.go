package main

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// The keys of the template's data. The order number tells which request a row or a message is: the daemon
// does not choose it.
const (
	keyThing  = "thing1"
	keyTime   = "time2"
	keyAmount = "amount3"
	keyOrder  = "character_string4"
)

// record is what a producer knows of one of his requests.
type record struct {
	order     string
	key       string // dedup_key; empty: none
	person    int
	recipient string // which of the columns names him: unionid, mini_openid or openid
	standing  standing
	priority  int
	due       time.Duration // after the INSERT
	expires   time.Duration // after the INSERT; 0: never
	short     bool          // data as {"thing1": "x"}

	// committed: the server has said so. A request that is not may be there all the same: its answer was lost.
	committed bool
	// withdrawn: the server has said that cancel is set, well before the request was due.
	withdrawn bool
}

// standing is what the recipient is to the official account.
type standing string

const (
	follows standing = "follows"
	late    standing = "late"    // follows only while the round is running
	never   standing = "never"   // will not follow
	refuses standing = "refuses" // has switched messages off
	gone    standing = "gone"    // has left, and the map does not know yet
)

// text is the data as the person must get it.
func (r *record) text() map[string]string {
	return map[string]string{
		keyThing:  "货 " + r.order,
		keyTime:   "2026-01-02 15:04",
		keyAmount: fmt.Sprintf("%d.80元", r.person%1000),
		keyOrder:  r.order,
	}
}

func (r *record) data() string {
	var data any = r.text()
	if !r.short {
		long := map[string]any{}
		for key, value := range r.text() {
			long[key] = map[string]string{"value": value}
		}
		data = long
	}
	text, err := json.Marshal(data)
	if err != nil {
		panic(err) // maps of strings always encode
	}
	return string(text)
}

// ledger holds all requests of a round, noted before they are inserted.
type ledger struct {
	mu      sync.Mutex
	records map[string]*record // by order
}

func newLedger() *ledger { return &ledger{records: map[string]*record{}} }

func (l *ledger) add(batch []*record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range batch {
		l.records[r.order] = r
	}
}

func (l *ledger) commit(batch []*record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range batch {
		r.committed = true
	}
}

func (l *ledger) withdraw(r *record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.withdrawn = true
}

// snapshot copies the records, when nobody changes them any more.
func (l *ledger) snapshot() map[string]record {
	l.mu.Lock()
	defer l.mu.Unlock()
	records := make(map[string]record, len(l.records))
	for order, r := range l.records {
		records[order] = *r
	}
	return records
}
