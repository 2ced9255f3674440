package wechat

// classify looks an errcode up: first what it means on this endpoint, then what it means
// everywhere.
func classify(e endpoint, code int) verdict {
	if v, ok := special(e, code); ok {
		return v
	}
	v, known := codes[code]
	if !known {
		v = verdict{ReasonUnknownCode, unknownPolicy(e.kind)}
	}
	return e.kind.adapt(v)
}

// special holds the codes that mean something else on one endpoint.
func special(e endpoint, code int) (verdict, bool) {
	var v verdict
	var ok bool
	switch {
	case e.path == EndpointFollowers && code == 40003:
		return verdict{ReasonInvalidCursor, PolicyRequest}, true
	case e.kind == kindSend:
		v, ok = sendCodes[code]
	case e.kind == kindToken && code == 40001, e.kind == kindSession && code == 40001:
		return verdict{"wrong_secret", PolicyConfig}, true
	case e.kind == kindSession && code == 45011:
		// 100 logins a minute per person, not per account.
		return verdict{"quota_minute", PolicyRecipientLater}, true
	}
	return v, ok
}

// unknownPolicy: a send with a code we have never seen must not be repeated for ever; a read may be
// tried a few times more.
func unknownPolicy(k kind) Policy {
	if k == kindRead {
		return PolicyRetry
	}
	return PolicyRequest
}

// adapt keeps the failures of a token call from being blamed on the message or person it was needed
// for: what is not transient or a quota there concerns the account. A session call carries no
// access token that could be renewed.
func (k kind) adapt(v verdict) verdict {
	switch {
	case k == kindToken && (v.policy == PolicyRequest || v.policy == PolicyRecipient || v.policy == PolicyToken),
		k == kindSession && v.policy == PolicyToken:
		v.policy = PolicyConfig
	}
	return v
}

// sendCodes is what differs where a message may already be under way, or where one template must
// not stop an account.
// a constant table, which Go cannot declare as such
var sendCodes = map[int]verdict{ //nolint:gochecknoglobals
	// seen of messages that were sent, and of others that were not
	-1: {ReasonSystemError, PolicyUncertain},
	// undocumented: delivered, or a duplicate of what was
	40241: {"duplicate_in_60s", PolicyUncertain},
	// no observed use; perhaps the answer to a used client_msg_id
	44007: {"repeated_msg_id", PolicyUncertain},
	45065: {"client_msg_id_exists", PolicyUncertain}, // says that the message went before

	// Once spurious for a valid id, 23 times in 11 minutes. Bad ids are caught before the call by
	// the account's own list.
	40037: {ReasonInvalidTemplate, PolicyRetry},
	// Facts about one template: its messages pause, the account's others go on.
	43102: {"template_not_subscription", PolicyTemplate},
	43116: {"template_banned", PolicyTemplate},
	45026: {"template_count_exceeded", PolicyTemplate},
	45027: {"template_industry_conflict", PolicyTemplate},
	48011: {"template_disabled", PolicyTemplate},
	// A fact about one link.
	45082: {"icp_license_missing", PolicyRequest},
}

// codes is what an errcode means, and what to do. Sources: WeChat's table of global return codes
// and, for the codes it does not have, recorded answers.
// a constant table, which Go cannot declare as such
var codes = map[int]verdict{ //nolint:gochecknoglobals
	// Busy: the same call may succeed later.
	-1:        {ReasonSystemError, PolicyRetry},
	20001:     {ReasonSystemError, PolicyRetry},
	43108:     {"concurrent_send", PolicyRetry}, // two sends to one person at once
	45061:     {"too_frequent", PolicyRetry},
	45066:     {"client_msg_id_too_fast", PolicyRetry}, // again after a minute
	45102:     {"api_blocked_temporarily", PolicyRetry},
	45169:     {"concurrent_tagging", PolicyRetry},
	45171:     {"partly_failed", PolicyRetry},
	61450:     {ReasonSystemError, PolicyRetry},
	268487001: {"system_busy", PolicyRetry},
	268487002: {"system_busy", PolicyRetry},

	// The access token.
	40001: {"invalid_token", PolicyToken},
	40014: {"invalid_token", PolicyToken},
	// we always send one; a proxy that drops it is not the message's fault
	41001: {"token_missing", PolicyToken},
	42001: {"token_expired", PolicyToken},
	42007: {"token_expired", PolicyToken},
	48012: {"invalid_token", PolicyToken},

	// Quotas. A month's is tried again each day, rather than waited for in one piece.
	43100: {"quota_month", PolicyQuotaDay},
	45009: {"quota_day", PolicyQuotaDay},
	45011: {"quota_minute", PolicyQuotaMinute},
	45028: {"quota_mass_send", PolicyQuotaDay},
	45040: {"quota_month", PolicyQuotaDay},
	45047: {"quota_replies", PolicyQuotaDay},
	45104: {"quota_domain", PolicyQuotaDay},
	48006: {"quota_month", PolicyQuotaDay},

	// The person.
	40003: {ReasonInvalidOpenID, PolicyRecipient},
	40226: {"risky_user", PolicyRecipient},
	43004: {ReasonNotFollower, PolicyRecipient},
	43005: {"not_friend", PolicyRecipient},
	43006: {"blocked_by_user", PolicyRecipient},
	43019: {"blacklisted", PolicyRecipient},
	43101: {ReasonRefused, PolicyRecipient},
	43117: {"recipient_later", PolicyRecipientLater},
	45015: {"reply_window_closed", PolicyRecipient},
	46004: {"user_unknown", PolicyRecipient},
	48002: {"blocked_by_user", PolicyRecipient},
	49003: {"openid_of_other_account", PolicyRecipient},
	50005: {ReasonNotFollower, PolicyRecipient},
	70000: {"minor_protection", PolicyRecipient},

	// The account, its permissions, its surroundings: nothing goes until a person acts.
	40013: {"invalid_appid", PolicyConfig},
	40037: {ReasonInvalidTemplate, PolicyConfig},
	40090: {"ip_not_allowed", PolicyConfig},
	40125: {"wrong_secret", PolicyConfig},
	40164: {"ip_not_allowed", PolicyConfig},
	40201: {"callback_url", PolicyConfig},
	40222: {"wrong_site", PolicyConfig},
	40243: {"secret_frozen", PolicyConfig},
	41031: {"form_id_blocked", PolicyConfig},
	41032: {"form_id_blocked", PolicyConfig},
	41033: {"form_id_blocked", PolicyConfig},
	41034: {"form_id_blocked", PolicyConfig},
	41035: {"form_id_blocked", PolicyConfig},
	43102: {"template_not_subscription", PolicyConfig},
	43103: {"no_permission", PolicyConfig},
	43104: {"no_permission", PolicyConfig},
	43105: {"no_permission", PolicyConfig},
	43106: {"punished", PolicyConfig},
	43107: {"capability_banned", PolicyConfig},
	45026: {"template_count_exceeded", PolicyConfig},
	45027: {"template_industry_conflict", PolicyConfig},
	45035: {"ip_not_allowed", PolicyConfig},
	45063: {"wrong_kind_of_token", PolicyConfig},
	45082: {"icp_license_missing", PolicyConfig},
	45087: {"punished", PolicyConfig},
	45094: {"punished", PolicyConfig},
	45103: {"api_retired", PolicyConfig},
	// also: a mini program's token on an official account's call
	45109: {"api_retired", PolicyConfig},
	46101: {"api_retired", PolicyConfig},
	48001: {"no_permission", PolicyConfig},
	48003: {"no_permission", PolicyConfig},
	48004: {"api_forbidden", PolicyConfig},
	48008: {"no_permission", PolicyConfig},
	48009: {"api_retired", PolicyConfig},
	48011: {"template_disabled", PolicyConfig},
	50001: {"no_permission", PolicyConfig},
	50002: {"account_limited", PolicyConfig},
	50004: {"punished", PolicyConfig},
	50007: {"account_frozen", PolicyConfig},
	61003: {"component_not_authorized", PolicyConfig},
	61004: {"ip_not_allowed", PolicyConfig},
	61007: {"component_not_authorized", PolicyConfig},
	61016: {"component_not_authorized", PolicyConfig},
	61017: {"component_not_authorized", PolicyConfig},
	63178: {"invalid_appid", PolicyConfig},
	63183: {"invalid_appid", PolicyConfig},
	76022: {"no_permission", PolicyConfig},
	89501: {"ip_awaits_administrator", PolicyConfig},
	89502: {"ip_awaits_administrator", PolicyConfig},
	89503: {"ip_awaits_administrator", PolicyConfig},
	89504: {"ip_awaits_administrator", PolicyConfig},
	89505: {"ip_awaits_administrator", PolicyConfig},
	89506: {"ip_refused_by_administrator", PolicyConfig},
	89507: {"ip_refused_by_administrator", PolicyConfig},

	200011: {"account_banned", PolicyConfig},
	200012: {"template_count_exceeded", PolicyConfig},
	200013: {"template_banned", PolicyConfig},

	// The request itself.
	20002:   {"invalid_argument", PolicyRequest},
	40002:   {"invalid_grant_type", PolicyRequest},
	40007:   {"invalid_media", PolicyRequest},
	40008:   {"invalid_message_type", PolicyRequest},
	40029:   {"invalid_code", PolicyRequest},
	40030:   {"invalid_refresh_token", PolicyRequest},
	40031:   {"invalid_openid_list", PolicyRequest},
	40032:   {"invalid_openid_list", PolicyRequest},
	40033:   {"invalid_charset", PolicyRequest},
	40034:   {"invalid_template_size", PolicyRequest},
	40035:   {"invalid_argument", PolicyRequest},
	40036:   {"template_id_missing", PolicyRequest},
	40038:   {"invalid_packaging", PolicyRequest},
	40039:   {"invalid_url", PolicyRequest},
	40048:   {"invalid_url", PolicyRequest},
	40062:   {"invalid_title", PolicyRequest},
	40066:   {"invalid_url", PolicyRequest},
	40068:   {"malicious_url", PolicyRequest},
	40092:   {"invalid_remark", PolicyRequest},
	40097:   {"invalid_argument", PolicyRequest},
	40102:   {"invalid_industry", PolicyRequest},
	40103:   {"invalid_industry", PolicyRequest},
	40129:   {"invalid_scene", PolicyRequest},
	40132:   {"invalid_username", PolicyRequest},
	40163:   {"code_used", PolicyRequest},
	40165:   {"invalid_mini_path", PolicyRequest},
	40166:   {"invalid_mini_appid", PolicyRequest},
	40202:   {"invalid_argument", PolicyRequest},
	40203:   {"invalid_argument", PolicyRequest},
	40221:   {"invalid_encoding", PolicyRequest},
	40241:   {"duplicate_in_60s", PolicyRequest}, // only a send can meet it
	40246:   {"invalid_keywords", PolicyRequest},
	40247:   {"invalid_keywords", PolicyRequest},
	40249:   {"illegal_content", PolicyRequest},
	41002:   {"argument_missing", PolicyRequest},
	41003:   {"argument_missing", PolicyRequest},
	41004:   {"argument_missing", PolicyRequest},
	41008:   {"argument_missing", PolicyRequest},
	41009:   {"argument_missing", PolicyRequest},
	41018:   {"argument_missing", PolicyRequest},
	41021:   {"argument_missing", PolicyRequest},
	41028:   {"invalid_form_id", PolicyRequest},
	41029:   {"invalid_form_id", PolicyRequest},
	41030:   {"invalid_page", PolicyRequest},
	42002:   {"refresh_token_expired", PolicyRequest},
	42003:   {"code_expired", PolicyRequest},
	43001:   {"wrong_method", PolicyRequest},
	43002:   {"wrong_method", PolicyRequest},
	43003:   {"https_required", PolicyRequest},
	43116:   {"template_banned", PolicyRequest},
	44002:   {"empty_request", PolicyRequest},
	44003:   {"empty_request", PolicyRequest},
	44004:   {"empty_request", PolicyRequest},
	44005:   {"empty_request", PolicyRequest},
	44007:   {"repeated_msg_id", PolicyRequest},
	45001:   {"too_large", PolicyRequest},
	45002:   {"too_large", PolicyRequest},
	45003:   {"too_large", PolicyRequest},
	45004:   {"too_large", PolicyRequest},
	45005:   {"too_large", PolicyRequest},
	45006:   {"too_large", PolicyRequest},
	45007:   {"too_large", PolicyRequest},
	45008:   {"too_large", PolicyRequest},
	45010:   {"too_large", PolicyRequest},
	45012:   {"template_too_large", PolicyRequest},
	45013:   {"template_too_large", PolicyRequest},
	45014:   {"message_too_large", PolicyRequest},
	45016:   {"invalid_group", PolicyRequest},
	45017:   {"invalid_group", PolicyRequest},
	45018:   {"invalid_group", PolicyRequest},
	45019:   {"invalid_openid_list", PolicyRequest},
	45051:   {"invalid_url", PolicyRequest},
	45056:   {"invalid_tag", PolicyRequest},
	45057:   {"invalid_tag", PolicyRequest},
	45058:   {"invalid_tag", PolicyRequest},
	45059:   {"invalid_tag", PolicyRequest},
	45065:   {"client_msg_id_exists", PolicyRequest},
	45067:   {"client_msg_id_too_long", PolicyRequest},
	45072:   {"invalid_argument", PolicyRequest},
	45080:   {"invalid_argument", PolicyRequest},
	45081:   {"invalid_argument", PolicyRequest},
	45157:   {"invalid_tag", PolicyRequest},
	45158:   {"invalid_tag", PolicyRequest},
	45159:   {"invalid_tag", PolicyRequest},
	45168:   {"illegal_content", PolicyRequest},
	46001:   {"not_existing", PolicyRequest},
	46002:   {"not_existing", PolicyRequest},
	46003:   {"not_existing", PolicyRequest},
	46009:   {"not_existing", PolicyRequest},
	47001:   {"data_format", PolicyRequest},
	47002:   {"invalid_charset", PolicyRequest},
	47003:   {ReasonInvalidKeyword, PolicyRequest},
	63179:   {"invalid_openid_list", PolicyRequest},
	63182:   {"invalid_openid_list", PolicyRequest},
	76001:   {"invalid_rid", PolicyRequest},
	76002:   {"invalid_rid", PolicyRequest},
	76003:   {"invalid_rid", PolicyRequest},
	76004:   {"invalid_rid", PolicyRequest},
	76021:   {"unknown_path", PolicyRequest},
	87009:   {"invalid_signature", PolicyRequest},
	200001:  {"invalid_argument", PolicyRequest},
	200002:  {"invalid_argument", PolicyRequest},
	200014:  {"invalid_argument", PolicyRequest},
	200016:  {"invalid_argument", PolicyRequest},
	200017:  {"invalid_argument", PolicyRequest},
	200018:  {"invalid_argument", PolicyRequest},
	200019:  {"invalid_argument", PolicyRequest},
	200020:  {"invalid_argument", PolicyRequest},
	200021:  {"invalid_argument", PolicyRequest},
	200022:  {"invalid_argument", PolicyRequest},
	200100:  {"invalid_argument", PolicyRequest},
	9001001: {"invalid_argument", PolicyRequest},

	-41000: {ReasonInvalidOpenID, PolicyRecipient}, // quoted by several blogs as "invalid openid"
}
