package wechat

import (
	"context"
	"errors"
	"fmt"
	"net/url"
)

// MaxBatch is how many people one BatchUserInfo can look up. More are refused with 40032.
const MaxBatch = 100

// UserInfo is what WeChat still knows of a person; names, sex and places have been empty since
// 2021. The strings of an answer share its memory; strings.Clone what outlives it.
type UserInfo struct {
	OpenID string `json:"openid"`
	// empty if the account is not bound to an Open Platform account, and for most who do not follow
	UnionID string `json:"unionid"`
	// unreliable: false for followers has been seen, and it lags behind a follow
	Subscribed     bool    `json:"-"`
	SubscribeTime  int64   `json:"subscribe_time"`  // last follow, unix seconds; else 0
	SubscribeScene string  `json:"subscribe_scene"` // ADD_SCENE_…
	QRScene        int64   `json:"qr_scene"`
	QRSceneStr     string  `json:"qr_scene_str"`
	Remark         string  `json:"remark"`
	GroupID        int64   `json:"groupid"`
	TagIDs         []int64 `json:"tagid_list"`
	Language       string  `json:"language"`
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

// BatchUserInfo looks up 1 to [MaxBatch] people. With an unknown openid in the list, answers have
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

// userWire is a record with what tells a former follower from an answer that lacks the field.
type userWire struct {
	UserInfo
	Subscribe *int64 `json:"subscribe"`
}

// info refuses a record without subscribe: absence must not read as "left".
func (w *userWire) info() (UserInfo, error) {
	if w.Subscribe == nil || w.OpenID == "" {
		return UserInfo{}, errors.New("subscribe or openid missing")
	}
	w.Subscribed = *w.Subscribe == 1
	return w.UserInfo, nil
}

func (u *UserInfo) decode(body []byte) error {
	var wire userWire
	err := unmarshal(body, &wire)
	if err == nil {
		*u, err = wire.info()
	}
	return err
}

type usersAnswer []UserInfo

func (u *usersAnswer) decode(body []byte) error {
	var wire struct {
		Users *[]userWire `json:"user_info_list"`
	}
	if err := unmarshal(body, &wire); err != nil {
		return err
	}
	if wire.Users == nil {
		return errors.New("user_info_list missing")
	}
	infos := make([]UserInfo, len(*wire.Users))
	for i := range infos {
		var err error
		if infos[i], err = (*wire.Users)[i].info(); err != nil {
			return err
		}
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
	return ok && subscribe >= 0 && to.OpenID != "" // as userWire.info
}
