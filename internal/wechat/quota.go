package wechat

import (
	"context"
	"errors"
	"time"
)

// Quota is how often an endpoint may be and was called today, with WeChat's error of about 1 %.
type Quota struct {
	DailyLimit int64
	Used       int64
	Remain     int64
}

// Quota asks for the quota of a path, with its leading slash and without host: one of the Endpoint
// constants. Paths under /sns are not known to it (76022).
//
// https://developers.weixin.qq.com/doc/service/api/apimanage/api_getapiquota
func (c *Client) Quota(ctx context.Context, cgiPath string) (quota Quota, err error) {
	body := append(appendString([]byte(`{"cgi_path":`), cgiPath), '}')
	err = c.authorised(ctx, request{endpoint: quotaEndpoint, body: body, into: &quota})
	if err == nil && c.cfg.ObserveQuota != nil {
		c.cfg.ObserveQuota(ctx, cgiPath, quota)
	}
	return quota, err
}

func (q *Quota) decode(body []byte) error {
	var wire struct {
		Quota *struct {
			DailyLimit looseInt `json:"daily_limit"`
			Used       looseInt `json:"used"`
			Remain     looseInt `json:"remain"`
		} `json:"quota"`
	}
	if err := unmarshal(body, &wire); err != nil {
		return err
	}
	if wire.Quota == nil {
		return errors.New("quota missing") // zeros would read as "used up"
	}
	w := wire.Quota
	*q = Quota{int64(w.DailyLimit), int64(w.Used), int64(w.Remain)}
	return nil
}

// QuotaDay returns the beginning of the quotas' present day. hour, 0 to 23, is the hour in China at
// which it begins: WeChat does not say which; its users see midnight.
func QuotaDay(now time.Time, hour int) time.Time {
	china := time.FixedZone("UTC+8", 8*60*60)
	y, m, d := now.In(china).Add(-time.Duration(hour) * time.Hour).Date()
	return time.Date(y, m, d, hour, 0, 0, 0, china)
}

// QuotaReset returns when the present day's quotas are reset, plus a minute, as clocks differ.
func QuotaReset(now time.Time, hour int) time.Time {
	return QuotaDay(now, hour).Add(24*time.Hour + time.Minute)
}
