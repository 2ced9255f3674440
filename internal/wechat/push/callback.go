// Package push verifies, decrypts and reads what WeChat pushes to an account's URL, as XML or as
// JSON: receipts, follow events, what people allow and withdraw, and punishments. It makes no calls
// and stores nothing.
package push

import (
	"crypto/sha1" //nolint:gosec // WeChat signs with SHA-1
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// ErrRefused marks a request to the callback that does not prove to be WeChat's. Nothing of it may
// be believed, and the answer is no success.
var ErrRefused = errors.New("not proved to be WeChat's")

// ErrUnreadable marks a push of WeChat's that this program cannot read. Repeating it changes
// nothing, so answer it like any other.
var ErrUnreadable = errors.New("push that cannot be read")

// noContent is refused: the body is unsigned in every mode, so garbage does not count as WeChat's.
// But the address is signed: it is probably a proxy that changes the body.
type noContent struct{}

func (noContent) Error() string {
	return "the address is signed, and the body is neither XML nor JSON: does a proxy change it?"
}

func (noContent) Is(target error) bool { return target == ErrRefused }

// plainAge is how far the timestamp of a plaintext push may be from our clock.
//
// The signature of a push covers the token, the timestamp and the nonce, and not the body. A reader
// of one URL in a proxy's log could put any body behind it, for ever; with this bound for ten
// minutes. WeChat's own repetitions come within seconds. An encrypted push has a signature over its
// content: repeated, however late, it says the same as before, which changes nothing (receipts have
// a primary key, events are compared by their time), and one that a proxy has held back for an hour
// is still true. So those have no bound, and no clock can break them.
const plainAge = 10 * time.Minute

// maxEcho bounds the echostr, which has 20 digits.
const maxEcho = 256

// Config configures a Callback with the values of the console's 服务器配置.
type Config struct {
	AppID          string
	Token          string           // required: an empty one would let everybody sign
	AESKey         string           // EncodingAESKey, 43 characters; "": plaintext pushes only
	PreviousAESKey string           // accepted too, while a key is being changed; may be ""
	Now            func() time.Time // nil: time.Now
}

// Callback verifies and reads the pushes of one official account or mini program. It is safe for
// concurrent use.
//
// https://developers.weixin.qq.com/doc/offiaccount/Basic_Information/Access_Overview.html
type Callback struct {
	appid string
	token string
	keys  [][]byte // current, previous
	now   func() time.Time

	// sealed: a push has come encrypted. From then on plaintext alone is refused: its signature
	// does not cover the body, so it would undo the protection of secure mode.
	sealed atomic.Bool
}

// New fails on a missing token and on invalid keys. The error does not quote them.
func New(cfg Config) (*Callback, error) {
	if cfg.Token == "" {
		return nil, errors.New("the callback needs a token")
	}
	c := &Callback{appid: cfg.AppID, token: cfg.Token, now: cfg.Now}
	if c.now == nil {
		c.now = time.Now
	}
	for _, text := range []string{cfg.AESKey, cfg.PreviousAESKey} {
		if text == "" {
			continue
		}
		key, err := decodeAESKey(text)
		if err != nil {
			return nil, err
		}
		c.keys = append(c.keys, key)
	}
	return c, nil
}

// Echo verifies the console's test of the URL, and returns the answer: the echostr, in all modes as
// it came. The error is ErrRefused.
func (c *Callback) Echo(query url.Values) (string, error) {
	if err := c.verify(query, "signature"); err != nil {
		return "", err
	}
	echo := query.Get("echostr")
	if echo == "" || len(echo) > maxEcho {
		return "", fmt.Errorf("%w: no echostr, or a long one", ErrRefused)
	}
	return echo, nil
}

// Decode verifies a push and reads it. Errors are ErrRefused and ErrUnreadable; neither holds a
// secret nor anything of the push. In compatible mode the encrypted form counts.
func (c *Callback) Decode(query url.Values, body []byte) (Message, error) {
	if err := c.verify(query, "signature"); err != nil {
		return Message{}, err
	}
	root, err := parse(body)
	if err != nil {
		return Message{}, noContent{}
	}
	switch encrypt := root.get("Encrypt"); {
	case encrypt != "" && len(c.keys) > 0:
		message, err := c.open(query, encrypt)
		if err != nil {
			return Message{}, err
		}
		if root, err = parse(message); err != nil {
			return Message{}, fmt.Errorf("%w: the content is neither XML nor JSON", ErrUnreadable)
		}
	case encrypt != "" && root.get("MsgType") == "":
		return Message{}, fmt.Errorf("%w: encrypted, and callback.aes_key is not set", ErrRefused)
	case query.Get("encrypt_type") == "aes" && len(c.keys) > 0:
		return Message{}, fmt.Errorf("%w: called encrypted, and has no Encrypt", ErrRefused)
	default:
		if err := c.allowPlain(query); err != nil {
			return Message{}, err
		}
	}
	return readPush(root)
}

func (c *Callback) open(query url.Values, encrypt string) ([]byte, error) {
	if err := c.verify(query, "msg_signature", encrypt); err != nil {
		return nil, err
	}
	for _, key := range c.keys {
		if message, ok := unseal(key, c.appid, encrypt); ok {
			c.sealed.Store(true)
			return message, nil
		}
	}
	// Which of padding, length and appid was wrong stays inside.
	return nil, fmt.Errorf("%w: signed, but not encrypted with callback.aes_key for this appid",
		ErrRefused)
}

// allowPlain guards the mode that does not sign its content.
func (c *Callback) allowPlain(query url.Values) error {
	if c.sealed.Load() {
		return fmt.Errorf("%w: plaintext, although earlier pushes were encrypted; "+
			"restart if the console was set back to plaintext mode", ErrRefused)
	}
	seconds, err := strconv.ParseInt(query.Get("timestamp"), 10, 64)
	if err != nil {
		return fmt.Errorf("%w: the timestamp is no number", ErrRefused)
	}
	// Compared in seconds: a Duration overflows on a timestamp from nowhere.
	if now, limit := c.now().Unix(), int64(plainAge/time.Second); seconds < now-limit ||
		seconds > now+limit {
		return fmt.Errorf("%w: plaintext with a timestamp more than %s from this machine's clock",
			ErrRefused, plainAge)
	}
	return nil
}

func (c *Callback) verify(query url.Values, name string, more ...string) error {
	want := signature(append(more, c.token, query.Get("timestamp"), query.Get("nonce")))
	if subtle.ConstantTimeCompare([]byte(want), []byte(query.Get(name))) != 1 {
		return fmt.Errorf("%w: wrong %s; is callback.token the console's?", ErrRefused, name)
	}
	return nil
}

// signature is the lower-case hex SHA-1 of the parts in the order of strings.
func signature(parts []string) string {
	slices.Sort(parts)
	sum := sha1.Sum([]byte(strings.Join(parts, "")))
	return hex.EncodeToString(sum[:])
}
