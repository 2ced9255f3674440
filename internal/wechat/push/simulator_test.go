package push_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/wechat/push"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

const (
	miniID      = wechatsim.StandardMiniAppID
	callbackKey = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
)

// TestAgainstSimulator reads what the simulator pushes in each format and mode. It was written
// apart from this package.
func TestAgainstSimulator(t *testing.T) {
	for _, format := range []wechatsim.Format{wechatsim.FormatXML, wechatsim.FormatArray,
		wechatsim.FormatObject, wechatsim.FormatList, wechatsim.FormatListArray,
		wechatsim.FormatMixed} {
		for mode, callback := range map[string]wechatsim.Callback{
			"plaintext": {}, "compatible": {AESKey: callbackKey, Compatible: true},
			"secure": {AESKey: callbackKey, Secure: true},
		} {
			t.Run(string(format)+"/"+mode, func(t *testing.T) {
				callback.Format = format
				readSimulated(t, callback)
			})
		}
	}
}

func readSimulated(t *testing.T, callback wechatsim.Callback) {
	sim := wechatsim.NewStandard(10, 10, 0)
	t.Cleanup(sim.Close)
	account, err := push.New(push.Config{AppID: miniID, Token: "token", AESKey: callbackKey})
	if err != nil {
		t.Fatal(err)
	}
	messages := make(chan push.Message, 10)
	web := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		message, err := account.Decode(r.URL.Query(), body)
		if err != nil {
			t.Errorf("%v\n%s", err, body)
		}
		messages <- message
	}))
	t.Cleanup(web.Close)
	callback.URL, callback.Token = web.URL, "token"
	callback.Subscribe.SentFailed = 1
	sim.SetCallback(miniID, &callback)

	templates := wechatsim.StandardSubscribeTemplates()
	const person = 3
	openid := sim.OpenID(miniID, person)
	next := func(do func()) []string {
		do()
		select {
		case m := <-messages:
			return describe(m)
		case <-time.After(10 * time.Second):
			t.Fatal("no push arrived")
			return nil
		}
	}
	tap := func(answer string, ids ...string) func() {
		return func() {
			tap := wechatsim.Tap{Templates: ids, Answer: answer, Scene: 1}
			if _, err := sim.Subscribe(miniID, person, tap); err != nil {
				t.Error(err)
			}
		}
	}
	for i, tt := range []struct {
		do   func()
		want []string
	}{
		{tap("accept", templates[0].ID, templates[1].ID, templates[3].ID), []string{
			"popup " + openid + " " + templates[0].ID + " accept 1",
			"popup " + openid + " " + templates[1].ID + " accept 1",
			"popup " + openid + " " + templates[3].ID + " accept 1"}},
		{tap("reject", templates[2].ID), []string{
			"popup " + openid + " " + templates[2].ID + " reject 1"}},
		{func() { sim.SwitchOff(miniID, person, templates[0].ID, templates[2].ID) }, []string{
			"change " + openid + " " + templates[0].ID + " reject ",
			"change " + openid + " " + templates[2].ID + " reject "}},
		{func() { sim.Authorize(miniID, person, push.EventCancelled, "") }, []string{
			"authorization " + openid + " " + sim.UnionID(person) + " " + miniID + " "}},
		{func() { sim.Authorize(miniID, person, push.EventRevoked, "8") }, []string{
			"authorization " + openid + " " + sim.UnionID(person) + " " + miniID + " 8"}},
		{func() { sim.Punish(miniID, push.PunishmentFunctions, "订阅消息", `a"b`) }, []string{
			`punishment 2 ` + miniID + ` [订阅消息 a"b]`}},
	} {
		if diff := cmp.Diff(tt.want, next(tt.do)); diff != "" {
			t.Errorf("case %d, -want +got:\n%s", i, diff)
		}
	}
}

func describe(m push.Message) []string {
	var lines []string
	for what, choices := range map[string][]push.Choice{"popup": m.Popup, "change": m.Change} {
		for _, c := range choices {
			lines = append(lines, fmt.Sprintf("%s %s %s %s %s", what, c.OpenID, c.TemplateID, c.Result,
				c.Scene))
		}
	}
	if a := m.Authorization; a != nil {
		lines = append(lines, fmt.Sprintf("authorization %s %s %s %s", a.OpenID, a.UnionID, a.AppID,
			a.Revoked))
	}
	if p := m.Punishment; p != nil {
		lines = append(lines, fmt.Sprintf("punishment %d %s %v", p.Type, p.AppID, p.Functions))
	}
	return slices.Clip(lines)
}
