// Command sdktest drives silenceper/wechat as client.js does the SDKs from npm: a command a line on
// stdin, an answer a line on stdout.
//
//	sdktest BASE SECRET OFFICIAL_APPID MINI_APPID
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/silenceper/wechat/v2"
	"github.com/silenceper/wechat/v2/cache"
	"github.com/silenceper/wechat/v2/miniprogram"
	miniconfig "github.com/silenceper/wechat/v2/miniprogram/config"
	"github.com/silenceper/wechat/v2/miniprogram/subscribe"
	"github.com/silenceper/wechat/v2/officialaccount"
	oaconfig "github.com/silenceper/wechat/v2/officialaccount/config"
	"github.com/silenceper/wechat/v2/officialaccount/message"
	"github.com/silenceper/wechat/v2/util"
)

type command struct {
	Do       string `json:"do"`
	Code     string `json:"code"`
	OpenID   string `json:"openid"`
	Template string `json:"template"`
	Data     map[string]struct {
		Value string `json:"value"`
	} `json:"data"`
	Body json.RawMessage `json:"body"`
}

type answer struct {
	OK     bool   `json:"ok"`
	Result any    `json:"result,omitempty"`
	Error  string `json:"error,omitempty"`
}

type client struct {
	base     string
	official *officialaccount.OfficialAccount
	mini     *miniprogram.MiniProgram
}

func main() {
	base, secret, official, mini := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	util.SetURIModifier(func(uri string) string {
		return strings.Replace(uri, "https://api.weixin.qq.com", base, 1)
	})
	w := wechat.NewWechat()
	w.SetCache(cache.NewMemory())
	c := client{base: base,
		official: w.GetOfficialAccount(&oaconfig.Config{AppID: official, AppSecret: secret}),
		mini:     w.GetMiniProgram(&miniconfig.Config{AppID: mini, AppSecret: secret}),
	}
	lines := bufio.NewScanner(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var cmd command
		if err := json.Unmarshal(lines.Bytes(), &cmd); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		result, err := c.do(cmd)
		if err != nil {
			_ = out.Encode(answer{Error: err.Error()})
			continue
		}
		_ = out.Encode(answer{OK: true, Result: result})
	}
}

func (c client) do(cmd command) (any, error) {
	switch cmd.Do {
	case "token":
		return c.official.GetAccessToken()
	case "login":
		who, err := c.mini.GetAuth().Code2Session(cmd.Code)
		return map[string]string{"openid": who.OpenID, "unionid": who.UnionID, "session_key": who.SessionKey}, err
	case "template":
		data := make(map[string]*message.TemplateDataItem)
		for key, v := range cmd.Data {
			data[key] = &message.TemplateDataItem{Value: v.Value}
		}
		msgid, err := c.official.GetTemplate().Send(&message.TemplateMessage{
			ToUser: cmd.OpenID, TemplateID: cmd.Template, URL: "https://example.com", Data: data,
		})
		return map[string]int64{"msgid": msgid}, err
	case "subscribe":
		data := make(map[string]*subscribe.DataItem)
		for key, v := range cmd.Data {
			data[key] = &subscribe.DataItem{Value: v.Value}
		}
		return nil, c.mini.GetSubscribe().Send(&subscribe.Message{
			ToUser: cmd.OpenID, TemplateID: cmd.Template, Page: "pages/index", Data: data,
		})
	case "uniform":
		var m subscribe.UniformMessage
		if err := json.Unmarshal(cmd.Body, &m); err != nil {
			return nil, err
		}
		return nil, c.mini.GetSubscribe().UniformSend(&m)
	}
	return nil, fmt.Errorf("no command %q", cmd.Do)
}
