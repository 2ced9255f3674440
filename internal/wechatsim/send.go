package wechatsim

import (
	"bytes"
	"strconv"
	"unicode/utf8"
)

// firstMsgID is about where real ones stand: far beyond 2^53, so that a client that reads them as a
// float is found out.
const firstMsgID = 2841345375939657729

// sendRequest is what the body of template/send or subscribe/send holds; the slices alias the body.
type sendRequest struct {
	touser, template, url, clientID []byte
	page, lang, state               []byte   // of a subscribe message
	data                            []byte   // as it stands, an object or what was sent instead
	link                            []byte   // miniprogram, as it stands
	values                          [][]byte // by the template's keywords; nil: the key is missing
	extra                           string   // the first key that the template lacks
	badValue                        bool     // a value that is no string
	unicodeEscapes                  bool
}

func (r *sendRequest) reset() {
	clear(r.values)
	*r = sendRequest{values: r.values[:0]}
}

func (c *call) templateSend() {
	if !c.parseSend() {
		return
	}
	t := c.app.template(c.send.template)
	switch {
	case len(c.send.template) == 0:
		c.fail(40036)
		return
	case t == nil:
		c.fail(40037)
		return
	case t.banned.Load():
		c.fail(43116)
		return
	}
	person, ok := c.app.ids.person(c.send.touser)
	if !ok {
		c.fail(40003)
		return
	}
	if code := c.recipient(person); code != 0 {
		c.fail(code)
		return
	}
	if !c.checkData(t) || !c.checkLink() {
		return
	}
	if c.app.quirks.Load().Duplicate60 && !c.app.store.fresh(person, c.duplicateKey(), c.now) {
		c.fail(40241)
		return
	}
	c.deliver(person)
}

// recipient asks whether the person can be reached.
func (c *call) recipient(person int) int {
	flags := c.app.people.of(person)
	switch {
	case flags.Blacklisted:
		return 43019
	case !c.app.followers.follows(person):
		return 43004
	case flags.Refuses || chance(mix(c.app.personHash(person)^3), c.app.quirks.Load().RefuseShare):
		return 43101
	case flags.Throttled:
		return 43117
	}
	return 0
}

// deliver records the message, once per (openid, client_msg_id), and answers its msgid.
func (c *call) deliver(person int) {
	repeat := c.app.quirks.Load().Repeat
	msgid := firstMsgID + c.s.messages.Add(1)*1048576
	if len(c.send.clientID) > 0 && repeat != RepeatSends {
		earlier := c.app.store.remember(person, c.send.clientID, msgid, c.now)
		if earlier != 0 && repeat == RepeatError {
			c.fail(44007)
			return
		}
		if earlier != 0 && repeat == RepeatSameID {
			msgid = earlier
		}
		if earlier != 0 {
			c.answerMsgID(msgid)
			return
		}
	}
	c.app.store.add(c, person, msgid)
	c.answerMsgID(msgid)
	c.s.pushReceipt(c.app, person, msgid)
}

func (c *call) answerMsgID(msgid int64) {
	c.out = append(c.out, `{"errcode":0,"errmsg":"ok","msgid":`...)
	c.out = strconv.AppendInt(c.out, msgid, 10)
	c.out = append(c.out, '}')
}

// duplicateKey is taken for what 40241 compares; WeChat does not say.
func (c *call) duplicateKey() uint64 {
	return hashBytes(hashBytes(1, c.send.template), c.send.data)
}

// parseSend reads the body's top level and leaves data to checkData, which knows the template.
func (c *call) parseSend() bool {
	c.send.reset()
	in := scanner{b: c.body}
	wrong := !utf8.Valid(c.body)
	in.expect('{')
	for first := true; in.more(first, '}'); first = false {
		wrong = c.parseSendField(&in) || wrong
	}
	c.send.unicodeEscapes = in.unicodeEscapes
	switch {
	case !in.end() || wrong:
		c.fail(47001)
	case in.unicodeEscapes && c.app.quirks.Load().RefuseEscapes:
		c.fail(47002)
	default:
		return true
	}
	return false
}

func (c *call) parseSendField(in *scanner) (wrong bool) {
	r := &c.send
	switch string(in.key()) {
	case "touser":
		r.touser, wrong = in.stringOr()
	case "template_id":
		r.template, wrong = in.stringOr()
	case "url":
		r.url, wrong = in.stringOr()
	case "page":
		r.page, wrong = in.stringOr()
	case "lang":
		r.lang, wrong = in.stringOr()
	case "miniprogram_state":
		r.state, wrong = in.stringOr()
	case "client_msg_id":
		r.clientID, wrong = in.stringOr()
	case "miniprogram":
		r.link = in.value()
	case "data":
		in.peek()
		r.data = in.value()
	default:
		in.value()
	}
	return wrong
}

// checkData validates the keywords. Data that is no object lacks them all: so a JSON string gives
// "is empty".
func (c *call) checkData(t *template) bool {
	c.parseData(t)
	if c.send.badValue {
		c.fail(47001)
		return false
	}
	if t.legacy { // never refused: the platform strips and truncates
		return true
	}
	for i, key := range t.keys {
		value := c.send.values[i]
		if isBlank(value) {
			c.failText(47003, "argument invalid! data."+key.name+".value is empty")
			return false
		}
		if !key.accepts(string(value)) {
			c.failText(47003, "argument invalid! data."+key.name+".value invalid")
			return false
		}
	}
	if c.send.extra != "" && c.app.quirks.Load().ExtraKeysRefused {
		c.failText(47003, "argument invalid! data."+c.send.extra+".value invalid")
		return false
	}
	return true
}

func (c *call) parseData(t *template) {
	for range t.keys {
		c.send.values = append(c.send.values, nil)
	}
	in := scanner{b: c.send.data}
	if !in.accept('{') {
		return
	}
	for first := true; in.more(first, '}'); first = false {
		key := in.key()
		value, wrong := dataValue(&in)
		c.send.badValue = c.send.badValue || wrong
		at := keyIndex(t.keys, key)
		if at >= 0 {
			c.send.values[at] = value
		} else if c.send.extra == "" {
			c.send.extra = string(key)
		}
	}
}

func keyIndex(keys []keyword, name []byte) int {
	for i := range keys {
		if keys[i].name == string(name) {
			return i
		}
	}
	return -1
}

// dataValue reads {"value":"…"}; anything else than an object has no value, a value that is no
// string is wrong.
func dataValue(in *scanner) (value []byte, wrong bool) {
	if in.peek() != '{' {
		in.value()
		return nil, false
	}
	in.expect('{')
	for first := true; in.more(first, '}'); first = false {
		if string(in.key()) == "value" {
			value, wrong = in.stringOr()
			continue
		}
		in.value()
	}
	return value, wrong
}

// checkLink refuses a mini-program link whose appid does not exist here, and a url beyond any
// bound.
func (c *call) checkLink() bool {
	if len(c.send.url) > 2048 {
		c.fail(40039)
		return false
	}
	if len(c.send.link) == 0 || bytes.Equal(c.send.link, []byte("null")) {
		return true
	}
	var appid []byte
	in := scanner{b: c.send.link}
	in.expect('{')
	for first := true; in.more(first, '}'); first = false {
		if string(in.key()) == "appid" {
			appid, _ = in.stringOr()
			continue
		}
		in.value()
	}
	if target := c.s.apps[string(appid)]; len(appid) > 0 && (target == nil || !target.mini) {
		c.fail(40166)
		return false
	}
	return true
}
