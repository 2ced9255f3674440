package wechatsim

import (
	"net/http"
	"sync"
	"sync/atomic"
)

// auth says whose access token an endpoint wants.
type auth int

const (
	authNone auth = iota
	authAny
	authOfficial
	authMini
)

// The paths that the simulator itself names elsewhere.
const (
	pathToken     = "/cgi-bin/token"
	pathUserGet   = "/cgi-bin/user/get"
	pathUserInfo  = "/cgi-bin/user/info"
	pathBatchInfo = "/cgi-bin/user/info/batchget"
	pathSend      = "/cgi-bin/message/template/send"
	pathSubscribe = "/cgi-bin/message/subscribe/send"
	pathUnknown   = "unknown"
)

// endpoint is one path of the platform, with what was counted on it.
type endpoint struct {
	path      string
	method    string
	auth      auth
	wrongKind int   // errcode for the token of the other kind of account
	daily     int64 // documented calls a day; 0: none known
	sns       bool  // text/plain, and a comma before rid
	noBody    bool  // a POST that has none
	serial    bool  // one call at a time to a person
	handle    func(*call)

	index       int
	contentType []string // of the answers; a header value shared by all of them
	calls       atomic.Int64
	mu          sync.Mutex
	errors      map[string]int64
}

func (e *endpoint) countError(kind string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.errors == nil {
		e.errors = make(map[string]int64)
	}
	e.errors[kind]++
}

// newEndpoints lists what the platform answers. Daily limits: reference §11; batchget's is not
// known and taken to be that of user/info.
func newEndpoints() (all map[string]*endpoint, unknown *endpoint) {
	const get, post = http.MethodGet, http.MethodPost
	list := []*endpoint{
		{path: pathToken, method: get, daily: 2000, handle: (*call).classicToken},
		{path: "/cgi-bin/stable_token", method: post, daily: 500000, handle: (*call).stableToken},
		{path: pathUserGet, method: get, auth: authOfficial, wrongKind: 48001, daily: 500,
			handle: (*call).userGet},
		{path: pathUserInfo, method: get, auth: authOfficial, wrongKind: 48001, daily: 5000000,
			handle: (*call).userInfo},
		{path: pathBatchInfo, method: post, auth: authOfficial, wrongKind: 48001, daily: 5000000,
			handle: (*call).batchUserInfo},
		{path: pathSend, method: post, auth: authOfficial, wrongKind: 45109, daily: 100000,
			handle: (*call).templateSend},
		{path: "/cgi-bin/template/get_all_private_template", method: get, auth: authOfficial,
			wrongKind: 48001, handle: (*call).privateTemplates},
		{path: "/cgi-bin/message/wxopen/template/send", method: post, auth: authAny,
			handle: retired(45103)},
		{path: "/cgi-bin/message/wxopen/template/uniform_send", method: post, auth: authAny,
			handle: retired(45109)},
		{path: pathSubscribe, method: post, auth: authMini, wrongKind: 48001, daily: 10000000,
			serial: true, handle: (*call).subscribeSend},
		{path: "/wxaapi/newtmpl/gettemplate", method: get, auth: authMini, wrongKind: 48001,
			handle: (*call).subscribeTemplates},
		{path: "/cgi-bin/openapi/quota/get", method: post, auth: authAny, handle: (*call).quotaGet},
		{path: "/cgi-bin/openapi/quota/clear", method: post, auth: authAny,
			handle: (*call).quotaClear},
		{path: "/cgi-bin/openapi/rid/get", method: post, auth: authAny, handle: (*call).ridGet},
		{path: "/cgi-bin/clear_quota", method: post, auth: authAny, handle: (*call).clearQuota},
		{path: "/cgi-bin/clear_quota/v2", method: post, noBody: true, handle: (*call).clearQuotaV2},
		{path: "/cgi-bin/get_api_domain_ip", method: get, auth: authAny, handle: (*call).domainIP},
		{path: "/cgi-bin/getcallbackip", method: get, auth: authAny, handle: (*call).domainIP},
		{path: "/sns/jscode2session", method: get, sns: true, handle: (*call).codeToSession},
	}
	contentJSON := []string{"application/json; encoding=utf-8"}
	all = make(map[string]*endpoint, len(list))
	for i, e := range list {
		e.index = i
		e.contentType = contentJSON
		if e.sns {
			e.contentType = []string{"text/plain"} // although it is JSON
		}
		all[e.path] = e
	}
	unknown = &endpoint{path: pathUnknown, index: len(list), contentType: contentJSON,
		handle: func(c *call) { c.fail(40066) }}
	return all, unknown
}

// retired answers an API that WeChat withdrew.
func retired(code int) func(*call) { return func(c *call) { c.fail(code) } }

const stableHint = ", could get access_token by getStableAccessToken, more details at " +
	"https://mmbizurl.cn/s/JtxxFh33r"

// newErrTexts lists the errmsg of each errcode, without the request id (reference §4.2 and §16).
func newErrTexts() map[int]string {
	return map[int]string{
		-1:    "system error",
		40001: "invalid credential, access_token is invalid or not latest" + stableHint,
		40002: "invalid grant_type", 40003: "invalid openid", 40013: "invalid appid",
		40014: "invalid access_token", 40029: "invalid code", 40032: "invalid openid list size",
		40036: "invalid template_id size", 40037: "invalid template_id", 40039: "invalid url size",
		40066: "invalid url", 40125: "invalid appsecret", 40163: "code been used",
		40165: "invalid weapp pagepath", 40166: "invalid weapp appid",
		40221: "invalid Content-Encoding", 40226: "code blocked",
		40241: "The message is duplicate in 60 seconds", 40243: "invalid appsecret",
		40249: "this template msg has been blocked for illegal content",
		41001: "access_token missing", 41002: "appid missing", 41004: "appsecret missing",
		41008: "missing code", 41009: "missing openid", 41030: "invalid page",
		42001: "access_token expired",
		43001: "require GET method", 43002: "require POST method", 43004: "require subscribe",
		43019: "require remove blacklist", 43101: "user refuse to accept the msg",
		43116: "This template_id is banned",
		43117: "Sending messages to this openid too frequently,please try later",
		44002: "empty post data", 44007: "repeated msg id",
		45009: "reach max api daily quota limit",
		45011: "api minute-quota reach limit  mustslower  retry next minute",
		45103: "This API has been unsupported",
		45109: "This API has been unsupported. For more details, please view " +
			"https://developers.weixin.qq.com/community/develop/doc/000ae8d6348af08e7030bc2546bc01?blockType=1",
		47001: "data format error",
		47002: `data format error, do NOT use json unicode encode (\uxxxx\uxxxx), please use ` +
			`utf8 encoded text!`,
		48001:     "api unauthorized",
		48006:     "forbid to clear quota because of reaching the limit",
		76001:     "rid not found",
		76002:     "invalid rid",
		76003:     "rid does not belong to this account",
		76021:     "cgi_path not found, please check",
		76022:     "could not use this cgi_path,no permission",
		268487002: "system busy",
	}
}
