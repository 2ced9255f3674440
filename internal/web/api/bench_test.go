package api

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// BenchmarkMessages is what the forms of requests cost, without the database.
func BenchmarkMessages(b *testing.B) {
	one := `{"recipient":{"mini_appid":"wx0b00000000000001","mini_openid":"oPerson_1234567890123456789"},` +
		`"template":"order_paid","data":{"thing1":{"value":"咖啡"},"amount3":{"value":12.5}},` +
		`"due_at":"2037-01-01T00:00:00Z","key":"order-1024-paid"}`
	for name, body := range map[string]string{
		"one": one, "batch": `{"messages":[` + strings.Repeat(one+",", 499) + one + `]}`,
	} {
		b.Run(name, func(b *testing.B) {
			fk := new(fake)
			a := New(newConfig(fk, io.Discard, prometheus.NewRegistry()))
			b.ReportAllocs()
			for b.Loop() {
				fk.messages = fk.messages[:0]
				if w := serve(a, http.MethodPost, "/v1/messages", body); w.Code > 201 {
					b.Fatal(w.Body)
				}
			}
		})
	}
}
