package compat

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestForward: a path that the application may call goes on as it came, without our token, and the
// answer comes back as it is.
func TestForward(t *testing.T) {
	f := newDoor(t, nil)
	req := request(t, "POST", f.url+"/wxa/getwxacode?a=b&access_token="+token+"_"+mini, strings.NewReader("{}\r\n"))
	req.Header.Set("Content-Type", "multipart/form-data; boundary=x")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	if err != nil || string(got) != "a picture" || resp.Header.Get("Content-Type") != "image/jpeg" || resp.StatusCode != http.StatusOK {
		t.Errorf("%s %q, %v", resp.Status, got, err)
	}
	if len(f.forwarded) != 1 {
		t.Fatalf("%d calls", len(f.forwarded))
	}
	call := f.forwarded[0]
	if call.AppID != mini || call.Method != http.MethodPost || call.Path != "/wxa/getwxacode" || call.Query.Encode() != "a=b" ||
		call.ContentType != req.Header.Get("Content-Type") || string(call.Body) != "{}\r\n" {
		t.Errorf("%+v", call)
	}
}

func TestNotForwarded(t *testing.T) {
	for name, tc := range map[string]struct {
		path, account string
		refused       error
		status        int
		words         string
	}{
		"a path of the list that it may not call": {"/wxa/msg_sec_check", mini, nil, 200, `"errcode":48001`},
		"a path that is not on the list":          {"/wxa/business/getuserphonenumber", mini, nil, 404, `"errcode":40066`},
		"spelt otherwise":                         {"/wxa//getwxacode", mini, nil, 404, `"errcode":40066`},
		"with dots":                               {"/wxa/x/../getwxacode", mini, nil, 404, `"errcode":40066`},
		"escaped twice":                           {"/wxa%252Fgetwxacode", mini, nil, 404, `"errcode":40066`},
		"in capitals":                             {"/WXA/getwxacode", mini, nil, 404, `"errcode":40066`},
		"with our token refused":                  {"/wxa/getwxacode", mini, errors.New("40001"), 503, `"errcode":61450`},
	} {
		f := newDoor(t, nil)
		f.refused = tc.refused
		status, got := f.post(t, tc.path, tc.account, "{}")
		if status != tc.status || !strings.Contains(got, tc.words) || tc.refused == nil && len(f.forwarded) > 0 {
			t.Errorf("%s: %d %s, %d forwarded", name, status, got, len(f.forwarded))
		}
	}
	f := newDoor(t, nil)
	got := send(t, request(t, "POST", f.url+"/wxa/getwxacode?access_token=of_wechat", strings.NewReader("{}")))
	if got.ErrCode == nil || *got.ErrCode != 40001 || len(f.forwarded) > 0 {
		t.Errorf("with a token of WeChat's: %+v", got)
	}
}
