package wechat

import "net/http"

// The endpoints this client calls, as in errors, [Call] and the answers of [Client.Quota].
const (
	EndpointStableToken  = "/cgi-bin/stable_token"
	EndpointToken        = "/cgi-bin/token"
	EndpointFollowers    = "/cgi-bin/user/get"
	EndpointUserInfo     = "/cgi-bin/user/info"
	EndpointBatchInfo    = "/cgi-bin/user/info/batchget"
	EndpointSendTemplate = "/cgi-bin/message/template/send"
	EndpointTemplates    = "/cgi-bin/template/get_all_private_template"
	EndpointQuota        = "/cgi-bin/openapi/quota/get"

	// Of mini programs.
	EndpointSession            = "/sns/jscode2session"
	EndpointSendSubscribe      = "/cgi-bin/message/subscribe/send"
	EndpointSubscribeTemplates = "/wxaapi/newtmpl/gettemplate"

	// Of [TokenURL] and [TokenCommand], names, since the server's address may hold a secret.
	EndpointTokenServer  = "token_server"
	EndpointTokenCommand = "token_command"
)

// TakesToken reports whether calls of an endpoint carry the account's access token.
func TakesToken(path string) bool {
	switch path {
	case EndpointStableToken, EndpointToken, EndpointSession, EndpointTokenServer,
		EndpointTokenCommand:
		return false
	}
	return true
}

type kind uint8

const (
	kindRead kind = iota // harmless to repeat
	kindSend             // reaches a person: a failure may hide a success
	// authenticates the account: its failures are the account's, never a message's
	kindToken
	kindSession // spends a single-use code
)

// quotable: undecipherable answers of the token and session calls may hold secrets.
func (k kind) quotable() bool { return k == kindRead || k == kindSend }

type endpoint struct {
	method string
	path   string
	kind   kind
	limit  int64 // bytes read of an answer at most
}

const smallAnswer = 64 << 10

// What is known about each path.
//
//nolint:gochecknoglobals // constants, which Go cannot declare as such
var (
	stableTokenEndpoint  = endpoint{http.MethodPost, EndpointStableToken, kindToken, smallAnswer}
	classicTokenEndpoint = endpoint{http.MethodGet, EndpointToken, kindToken, smallAnswer}
	tokenServerEndpoint  = endpoint{http.MethodGet, EndpointTokenServer, kindToken, smallAnswer}
	tokenCommandEndpoint = endpoint{"", EndpointTokenCommand, kindToken, smallAnswer}
	// 10,000 openids of 28 characters are 310 KB.
	followersEndpoint = endpoint{http.MethodGet, EndpointFollowers, kindRead, 1 << 20}
	userInfoEndpoint  = endpoint{http.MethodGet, EndpointUserInfo, kindRead, smallAnswer}
	// 100 records of 300 bytes are 30 KB; long remarks and tags stay far below the bound.
	batchInfoEndpoint    = endpoint{http.MethodPost, EndpointBatchInfo, kindRead, 512 << 10}
	sendTemplateEndpoint = endpoint{http.MethodPost, EndpointSendTemplate, kindSend, smallAnswer}
	// 25 templates with text and example are some 30 KB, and accounts with more exist.
	templatesEndpoint = endpoint{http.MethodGet, EndpointTemplates, kindRead, 1 << 20}
	quotaEndpoint     = endpoint{http.MethodPost, EndpointQuota, kindRead, smallAnswer}
	sessionEndpoint   = endpoint{http.MethodGet, EndpointSession, kindSession, smallAnswer}

	sendSubscribeEndpoint = endpoint{http.MethodPost, EndpointSendSubscribe, kindSend, smallAnswer}
	// As large as the list of an official account; an enumeration's values come on top.
	subscribeTemplatesEndpoint = endpoint{http.MethodGet, EndpointSubscribeTemplates, kindRead,
		1 << 20}
)
