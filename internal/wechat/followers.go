package wechat

import (
	"context"
	"errors"
	"net/url"
)

// FollowerPage is one page of an account's followers, up to 10,000, in no order that means
// anything. The strings of a page share its memory; strings.Clone what outlives it.
type FollowerPage struct {
	Total      int64    // followers of the account by WeChat's count, which moves during a scan
	OpenIDs    []string // never an empty one
	NextOpenID string   // what to call Followers with next
}

// End reports whether the list is over. Only an empty page ends it: the last page with followers
// names a next openid like all others, and Total is unreliable.
func (p FollowerPage) End() bool { return len(p.OpenIDs) == 0 }

// Followers returns the page after nextOpenID, the first for "". 500 calls a day.
// ReasonInvalidCursor: the person at the cursor left meanwhile.
//
// https://developers.weixin.qq.com/doc/service/api/usermanage/userinfo/api_getfans
func (c *Client) Followers(ctx context.Context, nextOpenID string) (page FollowerPage, err error) {
	r := request{endpoint: followersEndpoint, into: &page}
	if nextOpenID != "" {
		r.query = "next_openid=" + url.QueryEscape(nextOpenID)
	}
	err = c.authorised(ctx, r)
	return page, err
}

// decode refuses {}: a sweep takes an empty page for the end of the list.
func (p *FollowerPage) decode(body []byte) error {
	var wire struct {
		Total *looseInt `json:"total"`
		Count *looseInt `json:"count"`
		Data  struct {
			OpenIDs []optional[string] `json:"openid"`
		} `json:"data"`
		NextOpenID string `json:"next_openid"`
	}
	if err := unmarshal(body, &wire); err != nil {
		return err
	}
	if wire.Total == nil || wire.Count == nil {
		return errors.New("total or count missing")
	}
	var openids []string
	if wire.Data.OpenIDs != nil {
		openids = make([]string, 0, len(wire.Data.OpenIDs))
	}
	for _, id := range wire.Data.OpenIDs {
		openids = append(openids, id.value)
	}
	return p.set(int64(*wire.Total), int64(*wire.Count), openids, wire.NextOpenID)
}

// set drops empty entries, which old examples contain and unreadable ones become, and refuses a
// page that lacks rows.
func (p *FollowerPage) set(total, count int64, openids []string, next string) error {
	listed := int64(len(openids))
	kept := openids[:0]
	for _, id := range openids {
		if id != "" {
			kept = append(kept, id)
		}
	}
	if count != listed && count != int64(len(kept)) || count > 0 && len(kept) == 0 {
		return errors.New("count and number of openids differ")
	}
	if next == "" && len(kept) > 0 {
		next = kept[len(kept)-1] // what WeChat itself puts there; an empty one would start over
	}
	*p = FollowerPage{Total: total, OpenIDs: kept, NextOpenID: next}
	return nil
}

// minOpenIDBytes is an openid with its quotes and comma: how many a page holds at most, for one
// allocation instead of many.
const minOpenIDBytes = 31

func (p *FollowerPage) scan(body []byte) bool {
	s := scanner{text: string(body)}
	var total, count int64
	var next string
	var seen struct{ total, count bool }
	var openids []string
	ok := s.object(func(key string) bool {
		switch key {
		case "total":
			seen.total = true
			return s.integer(&total)
		case "count":
			seen.count = true
			return s.integer(&count)
		case "next_openid":
			return s.str(&next)
		case "data":
			return openids == nil && s.object(func(key string) bool {
				if key != "openid" || openids != nil {
					return false
				}
				openids = make([]string, 0, len(body)/minOpenIDBytes+1)
				return s.strings(&openids)
			})
		}
		return false
	})
	return ok && s.end() && seen.total && seen.count && p.set(total, count, openids, next) == nil
}
