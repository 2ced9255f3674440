// Package wechat is the client of WeChat's server API: one method per endpoint, access tokens that
// renew themselves, and errors that say what to do.
//
// It owns the connections, the token of one account, the bounded and defensive reading of answers,
// and the one table that maps an errcode to a [Reason] and a [Policy]. It makes no decisions: it
// never repeats a send, never pauses an account and never touches the database.
//
// Secret, token, js_code and session_key stand in URLs and bodies here. None of them may occur in
// an error, a log line or a Call that Observe receives, however a call fails; *url.Error, which
// prints whole URLs, never leaves the package.
package wechat
