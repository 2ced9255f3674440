package echo

import (
	"context"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // WeChat's signature
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// event is what WeChat pushes when a template message has been delivered, or not.
type event struct {
	XMLName      xml.Name `xml:"xml"`
	ToUserName   string   // the account that sent it
	FromUserName string   // whom it was sent to, if it was
	CreateTime   int64
	MsgType      string
	Event        string
	MsgID        int64 // what the door answered
	Status       string
}

// post tells an application once. The error holds no URL: it may have a secret in it.
func (e *Echo) post(ctx context.Context, target Target, r row, status string) error {
	now := e.cfg.Now().Unix()
	body, err := xml.Marshal(event{ToUserName: r.AppID, FromUserName: r.OpenID, CreateTime: now,
		MsgType: "event", Event: "TEMPLATESENDJOBFINISH", MsgID: r.ID, Status: status})
	if err != nil {
		return fmt.Errorf("writing the news of request %d: %w", r.ID, err)
	}
	address, err := signed(target, strconv.FormatInt(now, 10), rand.Text())
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(string(body)))
	if err != nil {
		return fmt.Errorf("%w: its URL is wrong", errRefused)
	}
	req.Header.Set("Content-Type", "text/xml; charset=utf-8")
	resp, err := e.client.Do(req)
	if err != nil {
		return fmt.Errorf("%w: no answer", errRefused)
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection is kept
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%w: HTTP %d", errRefused, resp.StatusCode)
	}
	return nil
}

// signed adds WeChat's signature to a URL: the SHA-1 of token, timestamp and nonce in their order.
func signed(target Target, timestamp, nonce string) (string, error) {
	u, err := url.Parse(target.URL)
	if err != nil {
		return "", fmt.Errorf("%w: its URL is wrong", errRefused)
	}
	parts := []string{target.Token, timestamp, nonce}
	slices.Sort(parts)
	sum := sha1.Sum([]byte(strings.Join(parts, ""))) //nolint:gosec // as above
	query := u.Query()
	query.Set("signature", hex.EncodeToString(sum[:]))
	query.Set("timestamp", timestamp)
	query.Set("nonce", nonce)
	u.RawQuery = query.Encode()
	return u.String(), nil
}
