package intake

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkInsert500 is what BenchmarkAccept500 is held against: the same rows in one statement.
func BenchmarkInsert500(b *testing.B) {
	db := newDB(b)
	query := `INSERT INTO send_request (openid, template, data, priority, due_at, dedup_key, application)
		VALUES (?, ?, ?, ?, ?, ?, ?)` + strings.Repeat(`, (?, ?, ?, ?, ?, ?, ?)`, 499)
	n := 0
	for b.Loop() {
		args := make([]any, 0, 7*500)
		for range 500 {
			n++
			args = append(args, person, "order_paid", `{"thing1":"茶","amount2":{"value":12.50}}`, 1,
				time.Now().UTC(), "door:"+hash([]byte("key"), fmt.Sprint(n)), "shop")
		}
		if _, err := db.Exec(query, args...); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAccept500(b *testing.B) {
	f := newInstance(b, newDB(b), shop())
	n := 0
	for b.Loop() {
		batch := make([]Message, 500)
		for i := range batch {
			n++
			batch[i] = order(keyed(fmt.Sprint(n)))
		}
		for _, r := range f.Accept(context.Background(), f.session, batch) {
			if r.Err != nil {
				b.Fatal(r.Err)
			}
		}
	}
}

// BenchmarkAccept is 64 callers with one message each.
func BenchmarkAccept(b *testing.B) {
	f := newInstance(b, newDB(b), shop())
	var n atomic.Int64
	b.SetParallelism(32)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			m := order(keyed(fmt.Sprint(n.Add(1))))
			if r := f.Accept(context.Background(), f.session, []Message{m})[0]; r.Err != nil {
				b.Error(r.Err)
			}
		}
	})
}
