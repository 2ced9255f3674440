package wechat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
)

// MaxBatch is how many people one BatchUserInfo can look up. More are refused with 40032.
const MaxBatch = 100

// UserInfo is what WeChat still knows of a person; names, sex and places have been empty since
// 2021. The strings of an answer share its memory; strings.Clone what outlives it.
type UserInfo struct {
	OpenID string
	// empty if the account is not bound to an Open Platform account, and for most who do not follow
	UnionID string
	// unreliable: false for followers has been seen, and it lags behind a follow
	Subscribed     bool
	SubscribeTime  int64  // last follow, unix seconds; else 0
	SubscribeScene string // ADD_SCENE_…
	QRScene        int64
	QRSceneStr     string
	Remark         string
	GroupID        int64
	TagIDs         []int64
	Language       string

	// Unreadable: only OpenID means something, and it may be empty. In answers of BatchUserInfo only.
	Unreadable bool
}

// UserInfo looks one person up. ReasonInvalidOpenID: unknown, or a follower of the last seconds.
//
// https://developers.weixin.qq.com/doc/service/api/usermanage/userinfo/api_userinfo
func (c *Client) UserInfo(ctx context.Context, openid string) (user UserInfo, err error) {
	err = c.authorised(ctx, request{
		endpoint: userInfoEndpoint,
		query:    "openid=" + url.QueryEscape(openid) + "&lang=zh_CN",
		into:     &user,
	})
	return user, err
}

// BatchUserInfo looks up 1 to [MaxBatch] people. A record that cannot be read costs only itself: it
// is Unreadable, in its place. With an unknown openid in the list, answers have
// been seen that miss people or give one the next one's unionid: compare answer and request.
//
// https://developers.weixin.qq.com/doc/service/api/usermanage/userinfo/api_batchuserinfo
func (c *Client) BatchUserInfo(ctx context.Context, openids []string) ([]UserInfo, error) {
	if len(openids) == 0 || len(openids) > MaxBatch {
		return nil, fmt.Errorf("looking up %d people in one call: 1 to %d are possible",
			len(openids), MaxBatch)
	}
	body := make([]byte, 0, len(openids)*(len(`{"openid":""},`)+32)+len(`{"user_list":[]}`))
	body = append(body, `{"user_list":[`...)
	for i, id := range openids {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(appendString(append(body, `{"openid":`...), id), '}')
	}
	body = append(body, `]}`...)
	var users usersAnswer
	err := c.authorised(ctx, request{endpoint: batchInfoEndpoint, body: body, into: &users})
	return users, err
}

// userWire is a record as it comes. What says who it is and whether they follow must be readable;
// any other field costs only itself.
type userWire struct {
	Subscribe      *looseInt            `json:"subscribe"`
	OpenID         string               `json:"openid"`
	UnionID        string               `json:"unionid"`
	SubscribeTime  optional[looseInt]   `json:"subscribe_time"`
	SubscribeScene optional[string]     `json:"subscribe_scene"`
	QRScene        optional[looseInt]   `json:"qr_scene"`
	QRSceneStr     optional[string]     `json:"qr_scene_str"`
	Remark         optional[string]     `json:"remark"`
	GroupID        optional[looseInt]   `json:"groupid"`
	TagIDs         optional[[]looseInt] `json:"tagid_list"`
	Language       optional[string]     `json:"language"`
}

// decode refuses a record without subscribe: absence must not read as "left".
func (u *UserInfo) decode(body []byte) error {
	var w userWire
	if err := unmarshal(body, &w); err != nil {
		return err
	}
	if w.Subscribe == nil || w.OpenID == "" {
		return errors.New("subscribe or openid missing")
	}
	*u = UserInfo{
		OpenID: w.OpenID, UnionID: w.UnionID, Subscribed: *w.Subscribe == 1,
		SubscribeTime: int64(w.SubscribeTime.value), SubscribeScene: w.SubscribeScene.value,
		QRScene: int64(w.QRScene.value), QRSceneStr: w.QRSceneStr.value, Remark: w.Remark.value,
		GroupID: int64(w.GroupID.value), Language: w.Language.value,
	}
	if w.TagIDs.value != nil {
		u.TagIDs = make([]int64, len(w.TagIDs.value))
	}
	for i, id := range w.TagIDs.value {
		u.TagIDs[i] = int64(id)
	}
	return nil
}

type usersAnswer []UserInfo

func (u *usersAnswer) decode(body []byte) error {
	var wire struct {
		Users *[]json.RawMessage `json:"user_info_list"`
	}
	if err := unmarshal(body, &wire); err != nil {
		return err
	}
	if wire.Users == nil {
		return errors.New("user_info_list missing")
	}
	infos := make([]UserInfo, len(*wire.Users))
	for i, record := range *wire.Users {
		if infos[i].decode(record) == nil {
			continue
		}
		var name struct {
			OpenID optional[string] `json:"openid"`
		}
		_ = json.Unmarshal(record, &name) // a record that is no object has no openid either
		infos[i] = UserInfo{OpenID: name.OpenID.value, Unreadable: true}
	}
	*u = infos
	return nil
}

func (u *usersAnswer) scan(body []byte) bool {
	s := scanner{text: string(body)}
	var infos []UserInfo
	ok := s.object(func(key string) bool {
		if key != "user_info_list" || infos != nil {
			return false
		}
		infos = make([]UserInfo, 0, MaxBatch)
		return s.array(func() bool {
			infos = append(infos, UserInfo{})
			return scanUser(&s, &infos[len(infos)-1])
		})
	})
	if !ok || !s.end() || infos == nil {
		return false
	}
	*u = infos
	return true
}

func scanUser(s *scanner, to *UserInfo) bool {
	subscribe := int64(-1)
	var ignored string
	var sex int64
	tagged := false
	ok := s.object(func(key string) bool {
		switch key {
		case "subscribe":
			return s.integer(&subscribe) && subscribe >= 0
		case "openid":
			return s.str(&to.OpenID)
		case "unionid":
			return s.str(&to.UnionID)
		case "subscribe_time":
			return s.integer(&to.SubscribeTime)
		case "subscribe_scene":
			return s.str(&to.SubscribeScene)
		case "qr_scene":
			return s.integer(&to.QRScene)
		case "qr_scene_str":
			return s.str(&to.QRSceneStr)
		case "remark":
			return s.str(&to.Remark)
		case "groupid":
			return s.integer(&to.GroupID)
		case "language":
			return s.str(&to.Language)
		case "sex":
			return s.integer(&sex)
		case "nickname", "city", "province", "country", "headimgurl":
			return s.str(&ignored)
		case "tagid_list":
			if tagged {
				return false
			}
			tagged = true
			to.TagIDs = []int64{}
			return s.array(func() bool {
				to.TagIDs = append(to.TagIDs, 0)
				return s.integer(&to.TagIDs[len(to.TagIDs)-1])
			})
		}
		return false
	})
	to.Subscribed = subscribe == 1
	return ok && subscribe >= 0 && to.OpenID != "" // as decode
}
