// Package wechatsim is a WeChat platform for tests, benchmarks and the demo: official accounts with
// followers, mini programs with users, access tokens, follower lists, template messages, subscribe
// messages with what people allow, and event pushes as XML or JSON, behind one [http.Handler]. It
// follows what the documentation and real answers show of api.weixin.qq.com, section numbers in
// comments are those of the project's API reference, and it can misbehave as the platform does: by
// [Quirks] and [Fault], at the start and at run time. Where nobody knows what WeChat does, the
// choice made here is marked [U] and, if it matters, switchable.
//
// The package owns its wire structs and shares none with the client under test: a shared struct
// would hide a wrong field name. The product does not import it.
//
// # Persons
//
// A person is a number, and everything about them is computed from it: their openid in every
// account, their unionid, when they followed. So an account has millions of followers in no memory.
// Persons First … First+Followers-1 follow an official account from the start, in that order in its
// list, which has to do with neither time nor openids. Only changes are held.
//
// # Control interface
//
// Another process reads back and switches under /_sim/. Parameters stand in the URL, appid chooses
// the account (default: the first that fits), a person is named by person=<number> or openid=<their
// openid in that account>. Answers are JSON; an error is {"error":"…"} with a status of 400 or 404.
//
//	GET    /_sim/accounts            the accounts
//	GET    /_sim/stats               [Stats]: calls, errors, delivered messages
//	GET    /_sim/messages            delivered messages as NDJSON of [Message]; offset, limit
//	GET    /_sim/truth               [Identity] of person=, openid= or unionid=
//	GET    /_sim/mini-users          a mini program's users as CSV appid,openid,unionid; offset, limit, format=ndjson
//	POST   /_sim/follow, unfollow    a person follows (at=0…1: the place in the list) or leaves
//	POST   /_sim/join, leave         n new people follow, n followers leave; answers who
//	POST   /_sim/person              body [Person]: refuses, is blacklisted, had too many messages
//	POST   /_sim/subscribe           a user taps: template (repeatable), answer, keep=1, scene
//	POST   /_sim/switch-off, switch-on  they reject or allow template (repeatable) in the settings
//	POST   /_sim/grant               they accept n messages of template, and the event never comes
//	GET    /_sim/grants              [GrantState]s, of all or of one person
//	POST   /_sim/authorize           pushes event about a person's data; revoked
//	POST   /_sim/punish              pushes a punishment of type; function (repeatable)
//	POST   /_sim/quirks              body [Quirks], fields not named stay
//	POST   /_sim/callback            body [Callback]; without URL: no pushes
//	POST   /_sim/limit               n calls a day for path; 0: no limit
//	POST   /_sim/tokens/invalidate   ends the account's tokens
//	POST   /_sim/rebind              other unionids for the accounts appid (repeatable), or for all
//	POST   /_sim/latency             d=20ms: on top of every answer
//	POST   /_sim/fault               body [Fault]; DELETE ends all
//	POST   /_sim/reset               sets the counters to zero and forgets the messages
package wechatsim
