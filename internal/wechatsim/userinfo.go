package wechatsim

import (
	"strconv"
	"time"
)

// maxBatch is how many openids one batchget may name (reference §3.2).
const maxBatch = 100

// The derived time of following of those who followed from the start lies in these ten years.
const (
	oldestFollow = 1420070400 // 2015-01-01
	followSpan   = 10 * 365 * 86400
)

// view is how an official account sees a person.
type view int

const (
	viewUnknown  view = iota // no such openid
	viewStranger             // subscribe 0
	viewFollower
)

func (c *call) userInfo() {
	openid := []byte(c.query("openid"))
	if len(openid) == 0 {
		c.fail(41009)
		return
	}
	person, ok := c.app.ids.person(openid)
	if !ok {
		c.fail(40003)
		return
	}
	roster := c.app.followers
	roster.mu.RLock()
	seen, since := c.view(person, false)
	roster.mu.RUnlock()
	switch seen {
	case viewUnknown:
		c.fail(40003)
	case viewStranger:
		c.appendStranger(openid, person)
	case viewFollower:
		c.appendFollower(openid, person, since, person)
	}
}

// batchUserInfo answers up to 100 at once. What it says of an openid that does not exist is not
// known for sure: here a well-formed one is a stranger (or shifts the unionids, see
// Quirks.Misalign) and a malformed one fails the call.
func (c *call) batchUserInfo() {
	if !c.parseBatch() {
		return
	}
	for _, openid := range c.openids {
		if !wellFormedID(openid) {
			c.fail(40003)
			return
		}
	}
	c.people = c.people[:0]
	unknown := -1
	for i, openid := range c.openids {
		person, ok := c.app.ids.person(openid)
		if !ok {
			person = -1
		}
		if !ok && unknown < 0 {
			unknown = i
		}
		c.people = append(c.people, person)
	}
	shiftFrom := len(c.openids)
	if unknown >= 0 && c.app.quirks.Load().Misalign {
		shiftFrom = unknown
	}
	roster := c.app.followers
	roster.mu.RLock()
	defer roster.mu.RUnlock()
	separator := `{"user_info_list":[`
	for i := range c.openids {
		c.out = append(c.out, separator...)
		c.appendBatchRecord(i, i >= shiftFrom)
		separator = ","
	}
	c.out = append(c.out, "]}"...)
}

// appendBatchRecord writes the i-th record; a shifted one carries the unionid of its successor, the
// last one none.
func (c *call) appendBatchRecord(i int, shifted bool) {
	person, owner := c.people[i], c.people[i]
	if shifted {
		owner = -1
		if i+1 < len(c.people) {
			owner = c.people[i+1]
		}
	}
	seen, since := viewStranger, time.Time{}
	if person >= 0 {
		seen, since = c.view(person, true)
	}
	if shifted && person < 0 {
		seen = viewFollower // the one report has it so: the made-up openid looks like a follower
	}
	if seen != viewFollower {
		c.appendStranger(c.openids[i], owner)
		return
	}
	c.appendFollower(c.openids[i], person, since, owner)
}

func (c *call) parseBatch() bool {
	c.openids = c.openids[:0]
	in := scanner{b: c.body}
	in.expect('{')
	for first := true; in.more(first, '}'); first = false {
		if string(in.key()) != "user_list" || in.peek() != '[' {
			in.value()
			continue
		}
		in.i++
		for first := true; in.more(first, ']'); first = false {
			c.openids = append(c.openids, batchItem(&in))
		}
	}
	switch {
	case !in.end():
		c.fail(47001)
	case len(c.openids) == 0 || len(c.openids) > maxBatch:
		c.fail(40032)
	default:
		return true
	}
	return false
}

func batchItem(in *scanner) (openid []byte) {
	in.expect('{')
	for first := true; in.more(first, '}'); first = false {
		if string(in.key()) == "openid" {
			openid, _ = in.stringOr()
			continue
		}
		in.value()
	}
	return openid
}

// view decides how a person appears, quirks included. It wants the roster's lock held.
func (c *call) view(person int, batch bool) (view, time.Time) {
	following, since := c.app.followers.look(person)
	if !following {
		return viewStranger, since
	}
	quirks := c.app.quirks.Load()
	late := quirks.InfoLag > 0 && !since.IsZero() && c.now.Sub(since) < quirks.InfoLag
	hash := c.app.personHash(person)
	switch {
	case late && quirks.LagUnknown && !batch:
		return viewUnknown, since
	case late, batch && chance(mix(hash^1), quirks.FalseZero):
		return viewStranger, since
	case !batch && chance(mix(hash^2), quirks.ListedUnknown):
		return viewUnknown, since
	}
	return viewFollower, since
}

// personHash is what an account's view of a person is derived from.
func (a *app) personHash(person int) uint64 { return mix(a.ids.check ^ uint64(person)) }

// appendFollower writes a follower's record with the unionid of owner, who is another person in a
// shifted batch.
func (c *call) appendFollower(openid []byte, person int, since time.Time, owner int) {
	hash := c.app.personHash(person)
	subscribed := oldestFollow + int64(hash%followSpan)
	if !since.IsZero() {
		subscribed = since.Unix()
	}
	c.out = append(c.out, `{"subscribe":1,"openid":"`...)
	c.out = append(c.out, openid...)
	c.out = append(c.out, `","nickname":"","sex":0,"language":"zh_CN","city":"","province":"","country":"","headimgurl":"","subscribe_time":`...)
	c.out = strconv.AppendInt(c.out, subscribed, 10)
	c.appendUnionID(owner)
	c.out = append(c.out, `,"remark":"","groupid":0,"tagid_list":[`...)
	if hash>>40&7 == 0 { // an eighth carries a tag
		c.out = strconv.AppendInt(c.out, 100+int64(hash>>48&15), 10)
	}
	c.out = append(c.out, `],"subscribe_scene":"`...)
	c.out = append(c.out, scene(hash)...)
	c.out = append(c.out, `","qr_scene":`...)
	c.out = strconv.AppendInt(c.out, int64(qrScene(hash)), 10)
	c.out = append(c.out, `,"qr_scene_str":""}`...)
}

// scene is one of the values of subscribe_scene (reference §3.3).
func scene(hash uint64) string {
	scenes := [...]string{
		"ADD_SCENE_SEARCH", "ADD_SCENE_QR_CODE", "ADD_SCENE_PROFILE_CARD", "ADD_SCENE_WXA",
		"ADD_SCENE_ACCOUNT_MIGRATION",
		"ADD_SCENE_PROFILE_LINK", "ADD_SCENE_PROFILE_ITEM", "ADD_SCENE_PAID",
		"ADD_SCENE_WECHAT_ADVERTISEMENT",
		"ADD_SCENE_REPRINT", "ADD_SCENE_LIVESTREAM", "ADD_SCENE_CHANNELS", "ADD_SCENE_OTHERS",
	}
	return scenes[hash>>32%uint64(len(scenes))]
}

// qrScene is the number of the QR code by which a person came, 0 if by none.
func qrScene(hash uint64) int {
	if scene(hash) != "ADD_SCENE_QR_CODE" {
		return 0
	}
	return 1 + int(hash>>20&1023)
}

func (c *call) appendStranger(openid []byte, owner int) {
	quirks := c.app.quirks.Load()
	c.out = append(c.out, `{"subscribe":0,"openid":"`...)
	c.out = append(c.out, openid...)
	c.out = append(c.out, '"')
	if quirks.NonFollowerUnion {
		c.appendUnionID(owner)
	}
	if !quirks.OldNonFollower {
		c.out = append(c.out, `,"nickname":"","sex":0,"language":"zh_CN","city":"","province":"","country":"","headimgurl":""`...)
	}
	c.out = append(c.out, `,"tagid_list":[]}`...)
}

// appendUnionID writes the key, or nothing for an unbound account or nobody.
func (c *call) appendUnionID(person int) {
	unions := c.app.unions.Load()
	if unions == nil || person < 0 {
		return
	}
	c.out = append(c.out, `,"unionid":"`...)
	c.out = unions.append(c.out, person)
	c.out = append(c.out, '"')
}

// SetQuirks changes an account's odd behaviour from the next call on.
func (s *Server) SetQuirks(appid string,
	quirks Quirks) {
	s.mustAccount(appid).quirks.Store(&quirks)
}
