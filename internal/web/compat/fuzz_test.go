package compat

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/internal/web"
)

// FuzzSend: whatever body and path arrive, the answer is one of WeChat's, none quotes the token, and
// what is accepted has said ok.
func FuzzSend(f *testing.F) {
	for _, body := range []string{
		`{"touser":"o1","template_id":"t","data":{"a":{"value":1}},"miniprogram":{"appid":"","pagepath":""}}`,
		`{"touser":"o1","mp_template_msg":{"appid":"wx","template_id":"t","data":{}},"weapp_template_msg":{"template_id":""}}`,
		`{"touser":"o1","template_id":"old","form_id":"f","data":null}`, `{"cgi_path":"/"}`, "", "null", "[]", "\ufeff{}",
		`{"touser":1}`, `{"data":"x","touser":{}}`, `{"page":"\ud800","lang":[]}`,
	} {
		for _, path := range []string{templatePath, subscribePath, uniformPath, formPath, "/cgi-bin/openapi/quota/get",
			"/cgi-bin/template/get_all_private_template", "/wxa/getwxacode", "/", "/cgi-bin//token"} {
			f.Add(path, body)
		}
	}
	fk := new(fake)
	door := New(Config{Bodies: web.NewBodies(), Registry: fk, Messages: fk, Accounts: fk, Logins: fk, Forwarder: fk,
		Registerer: prometheus.NewRegistry(), Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	f.Fuzz(func(t *testing.T, path, body string) {
		req, err := http.NewRequest(http.MethodPost, "http://x/", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.URL.Path = path
		req.URL.RawQuery = "access_token=" + token + "_" + mini
		before := len(fk.messages)
		rec := httptest.NewRecorder()
		door.ServeHTTP(rec, req)
		accepted := len(fk.messages) > before
		fk.messages, fk.forwarded = nil, nil
		if rec.Header().Get("Content-Type") == "image/jpeg" {
			return
		}
		var got struct {
			ErrCode *int   `json:"errcode"`
			MsgID   int64  `json:"msgid"`
			IPs     []any  `json:"ip_list"`
			Token   string `json:"access_token"`
		}
		if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil || got.ErrCode == nil && got.IPs == nil || got.Token != "" ||
			strings.Contains(rec.Body.String(), token) && !strings.Contains(path, token) {
			t.Fatalf("%q %q: %d %q", path, body, rec.Code, rec.Body)
		}
		if accepted != (got.MsgID > 0) || rec.Code >= http.StatusInternalServerError {
			t.Errorf("%q %q: accepted %t, %d %q", path, body, accepted, rec.Code, rec.Body)
		}
	})
}
