// Package status reads how things stand from the database: accounts, runs, the queue, pauses,
// leases, alarms. One Report serves command line, pages and JSON. It writes nothing and calls no
// WeChat.
package status

import "time"

// Report is how things stand. Its JSON is an interface, described in docs/status.md: keys are
// added, never renamed or removed. Lists are never null.
type Report struct {
	At       Time      `json:"at"`
	Accounts []Account `json:"accounts"`
	Queue    Queue     `json:"queue"`
	Quotas   []Quota   `json:"quotas"`
	Pauses   []Pause   `json:"pauses"`
	Leases   []Lease   `json:"leases"`
	Alarms   []Alarm   `json:"alarms"`
}

// The kinds of accounts.
const (
	KindOfficial = "official"
	KindMini     = "mini"
)

// Account is one that sends: an official account, or a mini program, which has no followers and so
// neither sweeps nor refreshes nor coverage.
type Account struct {
	AppID   string  `json:"appid"`
	Kind    string  `json:"kind"`
	Name    string  `json:"name"`
	Default bool    `json:"default"`
	SentBy  *string `json:"sent_by"` // the holder of the send lease
	Sweep   struct {
		Job
		LastGood *Run `json:"last_good"`
	} `json:"sweep"`
	Refresh  Job       `json:"refresh"`
	Coverage *Coverage `json:"coverage"`
}

// Job is what an account does on a schedule.
type Job struct {
	Schedule string `json:"schedule"` // "": a mini program's
	NextAt   *Time  `json:"next_at"`  // nil: of an interval, which counts from the daemon's start
	Last     *Run   `json:"last"`
}

// Run is one sweep or refresh.
type Run struct {
	ID        int64            `json:"id"`
	Mode      string           `json:"mode"`
	State     string           `json:"state"`
	StartedAt Time             `json:"started_at"`
	EndedAt   *Time            `json:"ended_at"`
	ResumeAt  *Time            `json:"resume_at"`
	Total     int64            `json:"total"`
	Listed    int64            `json:"listed"`
	Added     int64            `json:"added"`
	Changed   int64            `json:"changed"`
	Missing   int64            `json:"missing"`
	Gone      int64            `json:"gone"`
	Calls     map[string]int64 `json:"calls"`
	Error     *string          `json:"error"`
}

// Coverage is how much of the map of one account is known.
type Coverage struct {
	Followers               int64  `json:"followers"`
	Subscribed              int64  `json:"subscribed"`
	WithUnionID             int64  `json:"with_unionid"`
	NotAsked                int64  `json:"not_asked"`
	AskedWithoutUnionID     int64  `json:"asked_without_unionid"`
	UnionIDs                string `json:"unionids"`
	MiniUsers               int64  `json:"mini_users"`
	MiniUsersWithoutUnionID int64  `json:"mini_users_without_unionid"`
	ReachableMiniUsers      int64  `json:"reachable_mini_users"`
}

// Queue counts requests.
type Queue struct {
	Open   []Open  `json:"open"`
	Stuck  []Stuck `json:"stuck"`
	Recent struct {
		Requests int64     `json:"requests"`
		ByReason []Outcome `json:"by_reason"`
	} `json:"recent"` // the newest requests, whatever their status
}

// Open counts the requests of one account in one open status.
type Open struct {
	AppID       *string `json:"appid"` // nil: of the default account, and not claimed yet
	Status      string  `json:"status"`
	Requests    int64   `json:"requests"`
	Late        int64   `json:"late"`
	OldestDueAt Time    `json:"oldest_due_at"`
	// OldestSeconds is how long the oldest could have gone, at least; nil: none could yet.
	OldestSeconds *int64 `json:"oldest_seconds"`
	// Capped: there are more than were counted, which were the most urgent ones.
	Capped     bool            `json:"capped"`
	ByPriority []PriorityCount `json:"by_priority"`
}

// PriorityCount counts the requests of one priority.
type PriorityCount struct {
	Priority int   `json:"priority"`
	Requests int64 `json:"requests"`
}

// Stuck counts pending requests that one reason has put off again and again, as far as samples show.
type Stuck struct {
	AppID    *string `json:"appid"` // nil: as of Open
	Reason   string  `json:"reason"`
	Requests int64   `json:"requests"`
	Since    Time    `json:"since"` // the oldest could have gone since then
}

// Quota is WeChat's latest answer about how often an endpoint may still be called today.
type Quota struct {
	AppID     string `json:"appid"`
	Endpoint  string `json:"endpoint"`
	Limit     int64  `json:"limit"`
	Remaining int64  `json:"remaining"`
	AskedAt   Time   `json:"asked_at"`
}

// Outcome counts requests of one status and reason.
type Outcome struct {
	Status   string  `json:"status"`
	Reason   *string `json:"reason"`
	Requests int64   `json:"requests"`
}

// Pause is a paused account, or a paused template of one.
type Pause struct {
	AppID   string `json:"appid"`
	Scope   string `json:"scope"`
	Reason  string `json:"reason"`
	ErrCode int    `json:"errcode"`
	ErrMsg  string `json:"errmsg"`
	Since   Time   `json:"since"`
	Until   *Time  `json:"until"` // nil: until the cause is fixed
}

// Lease is a lease that an instance holds.
type Lease struct {
	Name      string `json:"name"`
	Holder    string `json:"holder"`
	Epoch     int64  `json:"epoch"`
	ExpiresAt Time   `json:"expires_at"`
}

// Alarm is something that a person should look at.
type Alarm struct {
	Code  string  `json:"code"` // monitoring relies on it; docs/status.md has the cures
	AppID *string `json:"appid"`
	Text  string  `json:"text"`
}

// Time is a moment. Its JSON is UTC with milliseconds, as the database's, in 24 characters.
type Time struct{ time.Time }

// MarshalJSON hides that of time.Time.
func (t Time) MarshalJSON() ([]byte, error) {
	return t.UTC().AppendFormat(nil, `"2006-01-02T15:04:05.000Z"`), nil
}

// optional is nil for what is empty here and null in JSON.
func optional[T comparable](v T) *T {
	if v == *new(T) {
		return nil
	}
	return &v
}
