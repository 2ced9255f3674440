package push

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fixtures are the documentation's examples.
func fixtures(t testing.TB) map[string]string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.*ml")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 || len(more) == 0 {
		t.Fatalf("%d and %d fixtures, %v", len(files), len(more), err)
	}
	texts := make(map[string]string)
	for _, file := range append(files, more...) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts[filepath.Base(file)] = string(text)
	}
	return texts
}

// FuzzDecode feeds bodies that are signed, plain and encrypted: nothing may panic, both ways must
// say the same, and what comes out must fit the database.
func FuzzDecode(f *testing.F) {
	for _, body := range []string{
		event("subscribe", "<EventKey><![CDATA[]]></EventKey>\n"), event("unsubscribe", ""),
		event("SCAN", ""),
		event(EventReceipt, "<MsgID>200163836</MsgID>\n<Status><![CDATA[success]]></Status>\n"),
		event(EventReceipt, "<MsgID>3557254367693750277</MsgID>\n<Status><![CDATA[failed: system "+
			"failed]]></Status>\n"),
		event(EventReceipt, "<MsgID>1</MsgID><Status>\x02\xff&#65;\u2028</Status>"),
		event("user_authorization_revoke", "<OpenID>o</OpenID>"),
		"<xml><MsgType>text</MsgType><Content><![CDATA[\x02]]></Content></xml>", secureBody("AAAA"),
		"", "<", "<a><b/></a>", "{}", `{"MsgType":"event","Event":"subscribe","CreateTime":1,` +
			`"FromUserName":"o"}`, `{"Encrypt":"AAAA"}`, punishmentJSON, withdrawalXML,
	} {
		f.Add([]byte(body))
	}
	for _, body := range fixtures(f) {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if root, err := parse(body); err == nil && root.get("Encrypt") != "" {
			return // as an envelope and as content that is not the same thing
		}
		plain, plainErr := newTestCallback(t, Config{}).Decode(signed(pushTime, ""), body)
		encrypt := sealWith(t, pushKey, pushAppID, string(body))
		sealed, sealedErr := newTestCallback(t,
			Config{AESKey: pushKey}).Decode(signed(pushTime, encrypt), []byte(secureBody(encrypt)))
		if (plainErr == nil) != (sealedErr == nil) {
			t.Fatalf("plain: %v, encrypted: %v", plainErr, sealedErr)
		}
		if plainErr != nil {
			return
		}
		if diff := cmp.Diff(plain, sealed); diff != "" {
			t.Error(diff)
		}
		checkBounds(t, plain)
	})
}

// checkBounds looks for what a column could not hold.
func checkBounds(t *testing.T, p Message) {
	t.Helper()
	if len(p.Event) > maxEvent {
		t.Errorf("event %q", p.Event)
	}
	if r := p.Receipt; r != nil && (!openidShape.MatchString(r.OpenID) || r.MsgID <= 0 ||
		r.Status == "" || len([]rune(r.Status)) > maxStatus) {
		t.Errorf("receipt %+v", r)
	}
	if e := p.Follow; e != nil && (!openidShape.MatchString(e.OpenID) || e.At.IsZero()) {
		t.Errorf("follow %+v", e)
	}
	for _, c := range append(p.Popup[:len(p.Popup):len(p.Popup)], p.Change...) {
		if !openidShape.MatchString(c.OpenID) || !templateShape.MatchString(c.TemplateID) ||
			!resultShape.MatchString(c.Result) || len(c.Scene) > 10 || c.At.IsZero() ||
			len(c.Key) == 0 || len(c.Key) > 190 {
			t.Errorf("choice %+v", c)
		}
	}
	for _, s := range p.Sent {
		if !openidShape.MatchString(s.OpenID) || !templateShape.MatchString(s.TemplateID) ||
			s.MsgID < 0 || len([]rune(s.Status)) > maxStatus || len(s.Key) > 190 {
			t.Errorf("sent report %+v", s)
		}
	}
	if a := p.Authorization; a != nil {
		for _, text := range []string{a.OpenID, a.UnionID, a.AppID, a.Revoked, a.PluginID,
			a.OpenPID} {
			if text != "" && !openidShape.MatchString(text) {
				t.Errorf("authorization %+v", a)
			}
		}
	}
	if p := p.Punishment; p != nil {
		if len(p.Functions) > maxFunctions || len([]rune(p.Reason)) > maxWords || p.Type < 0 {
			t.Errorf("punishment %+v", p)
		}
	}
}
