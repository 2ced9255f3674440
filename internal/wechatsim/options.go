package wechatsim

import (
	"fmt"
	"log/slog"
	"net/http"
	"time"
)

// The ids and secrets of [Standard]: one official account and one mini program of one Open Platform
// account.
const (
	StandardAppID      = "wx0a00000000000001"
	StandardSecret     = "0a5ec2e7000000000000000000000001"
	StandardMiniAppID  = "wx0b00000000000001"
	StandardMiniSecret = "0b5ec2e7000000000000000000000001"
)

// Keep says how much of each delivered message is remembered for the read-back.
type Keep string

// A benchmark of millions of sends wants KeepCounts; anything that checks recipients wants the
// others.
const (
	KeepAll    Keep = "all"    // everything; the default
	KeepHeads  Keep = "heads"  // all but data, url and mini-program link
	KeepCounts Keep = "counts" // only how many
)

// Options configure a [Server]. The zero value is a platform without accounts.
type Options struct {
	Accounts  []Account
	Minis     []Mini
	Templates []Template // of every account that lists none; nil: [StandardTemplates]
	Seed      uint64     // everything derived or random follows from it
	Latency   time.Duration
	Keep      Keep
	// RepeatWindow is how long a client_msg_id is remembered; 0: WeChat's 10 minutes.
	RepeatWindow time.Duration
	Faults       []Fault // active from the start
	// nil: time.Now; the clock of tokens, quotas, deduplication and subscribe_time
	Now    func() time.Time
	Logger *slog.Logger // nil: silent; only failed event pushes are logged
	Client *http.Client // for event pushes; nil: an own one
}

// Account is an official account (service account, verified).
type Account struct {
	AppID, Secret string
	OriginalID    string // gh_…, the ToUserName of pushes; default derived
	Followers     int    // people First … First+Followers-1 follow from the start
	First         int
	Platform      int  // which Open Platform account it is bound to; equal numbers share unionids
	Unbound       bool // bound to none: no unionid anywhere
	Templates     []Template
	DailyLimits   map[string]int64 // by path, over the documented ones; 0: none
	MinuteLimits  map[string]int64 // by path; nil: none
	Whitelist     []string         // addresses that may fetch tokens; nil: any
	Callback      *Callback
	Quirks        Quirks
}

// Mini is a mini program. A share NotFollowing of its users does not follow the first official
// account, evenly spread; the others are followers of it, as far as it has that many.
type Mini struct {
	AppID, Secret string
	Users         int
	NotFollowing  float64
	Platform      int
	Unbound       bool
	DailyLimits   map[string]int64
	Whitelist     []string
	Templates     []SubscribeTemplate // nil: [StandardSubscribeTemplates]
	Pages         []string            // of the published version; nil: any page exists
	NoMsgID       bool                // subscribe/send answers without a msgid
	Granted       int                 // messages of each template that everybody allows from the start
	Callback      *Callback
}

// Template is a message template of an official account. Keywords and their limits are read out of
// Content.
type Template struct {
	ID       string              `json:"template_id"` // 43 characters
	Title    string              `json:"title"`
	Primary  string              `json:"primary_industry"`
	Deputy   string              `json:"deputy_industry"`
	Content  string              `json:"content"` // "…{{thing1.DATA}}…"
	Example  string              `json:"example"`
	Values   map[string][]string `json:"-"` // the listed values of enum and const keywords
	Disabled bool                `json:"-"` // sends are answered 43116
}

// Quirks switch the platform's less obvious behaviour of one account; the zero value is the
// documented, well-behaved one. Each field names the section of the API reference that it follows;
// [U] marks a guess where nothing is known.
type Quirks struct {
	// §2 [U]: user/get with the cursor of a person who left gives 40003 instead of working
	GoneCursorFails bool
	// §2: `total` of user/get differs by up to so many from call to call
	TotalJitter  int
	SpacedBraces bool // §4.6: template contents read `{ {thing1.DATA} }`
	// §3.3: non-followers as before 2021: only subscribe, openid, unionid, tagid_list
	OldNonFollower bool
	// §3.3: non-followers carry a unionid (documentation; not seen since 2024)
	NonFollowerUnion bool
	// §3.4: so long after a follow user/info and batchget still say subscribe 0
	InfoLag    time.Duration
	LagUnknown bool // §3.4: … or user/info says 40003 meanwhile
	Misalign   bool // §3.4: batchget shifts unionids up behind an unknown openid
	// §3.4: share of the followers that batchget, but not user/info, calls subscribe 0
	FalseZero     float64
	ListedUnknown float64 // §3.4: share of the followers that user/info answers with 40003
	// §4.2: share of the followers who refuse template messages (43101)
	RefuseShare float64
	Repeat      Repeat // §4.1 [U]: the answer to a repeated client_msg_id
	// §4.2 [U]: the same openid, template and data within 60 s give 40241
	Duplicate60      bool
	RefuseEscapes    bool // §15 [U]: \uXXXX in a send gives 47002
	ExtraKeysRefused bool // §4.3 [U]: a keyword that the template lacks gives 47003
	// §1.2: a forced refresh leaves the preceding token alive for 5 minutes
	ForcedOverlap bool
}

// Repeat is the answer to a client_msg_id that the same openid had within 10 minutes; nothing is
// delivered again. What WeChat really answers is not known, so a client must live with each.
type Repeat string

// The answers one can think of.
const (
	RepeatSameID Repeat = "" // success with the first message's msgid; the default
	// success with a msgid of its own, which no event will ever name
	RepeatNewID Repeat = "new"
	RepeatError Repeat = "44007"   // 44007 repeated msg id
	RepeatSends Repeat = "deliver" // no deduplication at all
)

// Standard returns the options that most tests and the demo start from: one official account and
// one mini program.
func Standard(followers, miniUsers int, notFollowing float64) Options {
	return Options{
		Seed:     1,
		Accounts: []Account{{AppID: StandardAppID, Secret: StandardSecret, Followers: followers}},
		Minis: []Mini{{
			AppID: StandardMiniAppID, Secret: StandardMiniSecret, Users: miniUsers,
			NotFollowing: notFollowing,
		}},
	}
}

// NewStandard is New(Standard(…)).
func NewStandard(followers, miniUsers int, notFollowing float64) *Server {
	return New(Standard(followers, miniUsers, notFollowing))
}

// StandardTemplates are the templates of accounts that list none: [0] a category template with four
// keywords, [1] one with a single keyword, [2] a legacy one, whose values are never refused.
func StandardTemplates() []Template {
	return []Template{
		{
			ID: "Kq3vZ0rT8yXwB5nM1pL6sD9fG2hJ4kC7aQeRtYuIoPs", Title: "订单支付成功通知", Primary: "商业服务",
			Deputy:  "软件/建站/技术开发",
			Content: "商品名称:{{thing1.DATA}}\n支付时间:{{time2.DATA}}\n支付金额:{{amount3.DATA}}\n订单编号:{{character_string4.DATA}}\n",
			Example: "商品名称:示例商品\n支付时间:2026-01-02 15:04\n支付金额:39.80元\n订单编号:A-1024\n",
		},
		{
			ID: "Lm8xW2cV5bN7qA1sD4fG6hJ9kZ0pO3iU-yT_rEwQaSd", Title: "服务进度提醒", Primary: "商业服务",
			Deputy: "软件/建站/技术开发", Content: "进度:{{thing1.DATA}}\n", Example: "进度:已完成\n",
		},
		{
			ID: "iPk5sOIt5X_flOVKn5GrTFpncEYTojx6ddbt8WYoV5s", Title: "领取奖金提醒", Primary: "IT科技",
			Deputy:  "互联网|电子商务",
			Content: "{{first.DATA}}\n领奖金额:{{keyword1.DATA}}\n领奖时间:{{keyword2.DATA}}\n{{remark.DATA}}",
			Example: "您已提交领奖申请\n领奖金额:10元\n领奖时间:2013-10-10 12:22:22\n",
		},
	}
}

// originalID derives the gh_… id that stands in pushes as ToUserName.
func originalID(seed uint64, appid string) string {
	return fmt.Sprintf("gh_%012x", hashString(seed, appid)>>16)
}
