package wechat

// Explain says in a sentence or two what an errcode comes from and what to do about it: for the
// codes that operators meet; "" for all others.
func Explain(code int) string { return explanations[code] }

// ExplainAt is Explain where the endpoint is known: some codes have another cure there.
func ExplainAt(endpoint string, code int) string {
	if text := subscribeExplanations[code]; text != "" && endpoint == EndpointSendSubscribe {
		return text
	}
	return Explain(code)
}

var explanations = map[int]string{ //nolint:gochecknoglobals // constant
	-1: "WeChat was busy. Nothing to do unless it lasts; a lower send.rate helps if it comes " +
		"in bursts.",
	40001: "WeChat refused the access token, or the AppSecret. If it keeps happening, check the " +
		"secret, and whether another program refreshes tokens of this appid.",
	40003: "The openid is not one of this account: malformed, of another official account, or a " +
		"mini program's openid.",
	40013: "WeChat does not know the appid. Compare it with the console, 设置与开发 → 开发接口管理.",
	40032: "More than 100 openids in one batch.",
	40036: "The request carries no template id.",
	40037: "The template id is not in this account's library: deleted, another account's, or a " +
		"subscription template's. Compare it with the console, 模板消息 → 我的模板.",
	40125: "The AppSecret is wrong: it was reset, or belongs to another account. Put the new one " +
		"into the configured secret and restart.",
	40163: "The login code was used before. Codes work once: the app must call wx.login again.",
	40029: "The login code is wrong, older than 5 minutes, or of another mini program.",
	40164: "This machine's public address, named in the message, is not on the account's IP " +
		"whitelist. Add it in the console: 设置与开发 → 开发接口管理 → IP白名单.",
	40226: "WeChat blocks the login of a user it deems risky.",
	40241: "WeChat takes the message for a duplicate within 60 seconds. It was probably " +
		"delivered; it is not repeated blindly.",
	40243: "The AppSecret is frozen. Unfreeze it in the console: 设置与开发 → 开发接口管理.",
	40249: "WeChat blocked the message for its content.",
	42001: "The access token expired; a new one is fetched automatically.",
	43004: "The person does not follow the official account.",
	43019: "The person is on the account's blacklist. Take them off it in the console: 用户管理.",
	43101: "The person switched these messages off. Only they can switch them on again.",
	43107: "WeChat took this message capability away from the mini program; see the notices in " +
		"its console.",
	43116: "WeChat banned the template. Use another one; the console names the reason.",
	43117: "This person got too many messages lately; later ones may go through.",
	45009: "The day's quota of this call is used up. It resets at midnight China time as far as " +
		"known; clear_quota resets it at once, 10 times a month.",
	45011: "Too many calls in this minute. Lower the configured rate if it stays.",
	45109: "WeChat withdrew this call, or it was made with a mini program's credentials: appid " +
		"and secret must be the official account's.",
	45103: "WeChat withdrew this call, or it was made with a mini program's credentials: appid " +
		"and secret must be the official account's.",
	47001: "The request is not the JSON that WeChat expects: data must be an object of objects, " +
		"in UTF-8.",
	47003: "A keyword's value breaks the rule of its type, or is empty; the message names the " +
		"keyword.",
	48001: "The account has no permission for this call: it is not a verified service account, " +
		"or the credentials are a mini program's.",
	48004: "WeChat closed this call to the account for a violation; see the notices in the " +
		"console.",
	50002: "The account is limited or frozen; see the notices in the console.",
	50004: "WeChat does not let this account use access tokens, probably as a punishment; see " +
		"the notices in the console.",
	50007: "The account is frozen; see the notices in the console.",
	61004: "This machine's public address is not registered with the third-party platform.",
	76021: "The path is not one that WeChat counts: with a leading slash and without host.",
	89503: "The account's administrator must allow this machine's address: WeChat sent them a " +
		"request to confirm.",
	89506: "The account's administrator refused this machine's address; WeChat asks them again " +
		"after 24 hours.",
	89507: "The account's administrator refused this machine's address; WeChat asks them again " +
		"after an hour.",
}

// subscribeExplanations differ for subscribe messages: the credentials are a mini program's there,
// and what a template-message developer would do about 43101 does not help.
var subscribeExplanations = map[int]string{ //nolint:gochecknoglobals // constant
	20001: "WeChat had an error of its own. The message may have been queued; it is not repeated.",
	40003: "The openid is not one of this mini program: malformed, another mini program's, or an " +
		"official account's openid. Each account has openids of its own.",
	40013: "WeChat does not know the appid, or the access token belongs to another account. " +
		"Appid and secret must be those of the mini program that the person uses, not of another " +
		"one of the company and not of the official account.",
	40037: "The template id is not in this mini program's list: deleted, another account's, or a " +
		"template message's. Compare it with the console, 订阅消息 → 我的模板.",
	41030: "The page does not exist in the mini program's published version. It is a path " +
		"without a host, such as pages/order?id=1.",
	43101: "The person has not accepted this template, has used their acceptances up, or " +
		"switched it off; WeChat does not say which. The mini program must call " +
		"wx.requestSubscribeMessage with this template id when the person taps a button. A " +
		"one-time template allows one message for each acceptance.",
	43108: "Two messages went to this person at once, and WeChat took one. If it lasts, another " +
		"program sends with this mini program too.",
	45103: "WeChat withdrew this call, or it was made with an official account's credentials: " +
		"appid and secret must be the mini program's.",
	45109: "WeChat withdrew this call, or it was made with an official account's credentials: " +
		"appid and secret must be the mini program's.",
	45168: "WeChat blocks a word in one of the values.",
	47003: "A keyword's value breaks the rule of its type, or is empty or missing. The message " +
		"names one keyword only; the others may be wrong, too. The keys belong to this template: " +
		"compare them with the console, 订阅消息 → 我的模板 → 详情.",
	48001: "The account has no permission for this call, or the credentials are not a mini " +
		"program's.",
}
