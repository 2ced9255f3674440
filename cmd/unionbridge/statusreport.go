package main

import (
	"time"

	"github.com/unionbridge/unionbridge/sync"
)

// statusReport is what "unionbridge status" shows, and with --json prints. Its keys are an interface,
// described in docs/status.md: keys are added, never renamed or removed. Lists are never null.
type statusReport struct {
	At       string          `json:"at"`
	Accounts []accountStatus `json:"accounts"`
	Queue    queueStatus     `json:"queue"`
	Pauses   []pauseStatus   `json:"pauses"`
	Leases   []leaseStatus   `json:"leases"`
	Alarms   []alarm         `json:"alarms"`
}

type accountStatus struct {
	AppID    string          `json:"appid"`
	Name     string          `json:"name"`
	Default  bool            `json:"default"`
	SentBy   *string         `json:"sent_by"`
	Sweep    sweepStatus     `json:"sweep"`
	Refresh  jobStatus       `json:"refresh"`
	Coverage *coverageStatus `json:"coverage"`
}

type jobStatus struct {
	Schedule string     `json:"schedule"`
	NextAt   *string    `json:"next_at"`
	Last     *runStatus `json:"last"`
}

type sweepStatus struct {
	jobStatus
	LastGood *runStatus `json:"last_good"`
}

type runStatus struct {
	ID        int64            `json:"id"`
	Mode      string           `json:"mode"`
	State     string           `json:"state"`
	StartedAt string           `json:"started_at"`
	EndedAt   *string          `json:"ended_at"`
	ResumeAt  *string          `json:"resume_at"`
	Total     int64            `json:"total"`
	Listed    int64            `json:"listed"`
	Added     int64            `json:"added"`
	Changed   int64            `json:"changed"`
	Missing   int64            `json:"missing"`
	Gone      int64            `json:"gone"`
	Calls     map[string]int64 `json:"calls"`
	Error     *string          `json:"error"`
}

type coverageStatus struct {
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

type queueStatus struct {
	Open   []openStatus `json:"open"`
	Recent recentStatus `json:"recent"`
}

type openStatus struct {
	AppID       *string `json:"appid"`
	Status      string  `json:"status"`
	Requests    int64   `json:"requests"`
	Late        int64   `json:"late"`
	OldestDueAt string  `json:"oldest_due_at"`
}

type recentStatus struct {
	Requests int64           `json:"requests"`
	ByReason []outcomeStatus `json:"by_reason"`
}

type outcomeStatus struct {
	Status   string  `json:"status"`
	Reason   *string `json:"reason"`
	Requests int64   `json:"requests"`
}

type pauseStatus struct {
	AppID   string  `json:"appid"`
	Scope   string  `json:"scope"`
	Reason  string  `json:"reason"`
	ErrCode int     `json:"errcode"`
	ErrMsg  string  `json:"errmsg"`
	Since   string  `json:"since"`
	Until   *string `json:"until"`
}

type leaseStatus struct {
	Name      string `json:"name"`
	Holder    string `json:"holder"`
	Epoch     int64  `json:"epoch"`
	ExpiresAt string `json:"expires_at"`
}

// alarm is something that a person should look at.
type alarm struct {
	Code  string  `json:"code"`
	AppID *string `json:"appid"`
	Text  string  `json:"text"`
}

func newRunStatus(r *sync.Run) *runStatus {
	if r == nil {
		return nil
	}
	return &runStatus{
		ID: r.ID, Mode: r.Mode, State: string(r.State), StartedAt: jsonTime(r.Started), EndedAt: optionalTime(r.Ended),
		ResumeAt: optionalTime(r.ResumeAt), Total: r.Total, Listed: r.Listed, Added: r.Added, Changed: r.Changed,
		Missing: r.Missing, Gone: r.Gone, Calls: r.Calls, Error: orNull(r.Error),
	}
}

// jsonTime is a moment in UTC with milliseconds, as the database has them; always 24 characters.
func jsonTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func optionalTime(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := jsonTime(t)
	return &s
}
