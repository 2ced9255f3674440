package wechat

import (
	"context"
	"errors"
	"time"
)

// Quota is how often an endpoint may be called and has been called today, with WeChat's own error of about 1 %.
type Quota struct {
	DailyLimit int64
	Used       int64
	Remain     int64
	RateLimit  *RateLimit // nil where there is none
}

// RateLimit is a bound within a day.
type RateLimit struct {
	Calls   int64 `json:"call_count"`
	Seconds int64 `json:"refresh_second"`
}

// Quota asks for the quota of a path, with its leading slash and without host: one of the Endpoint constants. Paths under
// /sns are not known to it (76022).
//
// https://developers.weixin.qq.com/doc/service/api/apimanage/api_getapiquota
func (c *Client) Quota(ctx context.Context, cgiPath string) (Quota, error) {
	var quota quotaAnswer
	body := append(AppendString([]byte(`{"cgi_path":`), cgiPath), '}')
	err := c.authorised(ctx, request{endpoint: epQuota(), body: body, into: &quota})
	return quota.quota, err
}

type quotaAnswer struct{ quota Quota }

func (a *quotaAnswer) decode(body []byte) error {
	var wire struct {
		Quota *struct {
			DailyLimit int64 `json:"daily_limit"`
			Used       int64 `json:"used"`
			Remain     int64 `json:"remain"`
		} `json:"quota"`
		RateLimit *RateLimit `json:"rate_limit"`
	}
	if err := unmarshal(body, &wire); err != nil {
		return err
	}
	if wire.Quota == nil {
		return errors.New("quota missing") // zeros would read as "used up"
	}
	a.quota = Quota{wire.Quota.DailyLimit, wire.Quota.Used, wire.Quota.Remain, wire.RateLimit}
	return nil
}

// QuotaReset returns when the quotas of the day that holds now begin anew. WeChat's texts do not say when that is;
// midnight in China is what its users see, and a minute is added because clocks differ.
func QuotaReset(now time.Time) time.Time {
	china := time.FixedZone("UTC+8", 8*60*60)
	y, m, d := now.In(china).Date()
	return time.Date(y, m, d+1, 0, 1, 0, 0, china)
}
