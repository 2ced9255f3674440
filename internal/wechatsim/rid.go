package wechatsim

import (
	"sync"
)

// ridsKept is how many of the last errors openapi/rid/get explains; WeChat keeps them for 7 days.
const ridsKept = 512

// ridLog remembers the last calls that were answered with an errcode.
type ridLog struct {
	mu   sync.Mutex
	next int
	ring [ridsKept]ridRecord
}

type ridRecord struct {
	rid string
	app *app
	ridRequest
}

type ridRequest struct {
	InvokeTime int64 `json:"invoke_time"`
	CostInMS   int64 `json:"cost_in_ms"`
	// the query, with the access token, as the platform has it
	RequestURL   string `json:"request_url"`
	RequestBody  string `json:"request_body"`
	ResponseBody string `json:"response_body"`
	ClientIP     string `json:"client_ip"`
}

func (l *ridLog) add(rid string, c *call) {
	record := ridRecord{rid: rid, app: c.app, ridRequest: ridRequest{
		InvokeTime: c.now.Unix(), RequestURL: c.r.URL.RawQuery, RequestBody: string(c.body),
		ResponseBody: string(c.out), ClientIP: c.remoteIP(),
	}}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ring[l.next%ridsKept] = record
	l.next++
}

func (l *ridLog) find(rid string) (ridRecord, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.ring {
		if l.ring[i].rid == rid {
			return l.ring[i], true
		}
	}
	return ridRecord{}, false
}

func (c *call) ridGet() {
	var request struct {
		RID string `json:"rid"`
	}
	if !c.bind(&request) {
		return
	}
	if len(request.RID) != len("xxxxxxxx-xxxxxxxx-xxxxxxxx") {
		c.fail(76002)
		return
	}
	record, ok := c.s.rids.find(request.RID)
	switch {
	case !ok:
		c.fail(76001)
	case record.app != c.app:
		c.fail(76003)
	default:
		c.json(struct {
			ErrCode int        `json:"errcode"`
			ErrMsg  string     `json:"errmsg"`
			Request ridRequest `json:"request"`
		}{ErrMsg: "ok", Request: record.ridRequest})
	}
}

// domainIP answers the documentation's example, for both directions.
func (c *call) domainIP() {
	c.out = append(c.out, `{"ip_list":["101.89.47.18","101.91.34.103"]}`...)
}
