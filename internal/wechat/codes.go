package wechat

// classify looks an errcode up: its meaning on this endpoint, else its general one.
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

// unknownPolicy: a send with an unknown code must not be repeated; a read may.
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
	case k == kindToken && (v.policy == PolicyRequest || v.policy == PolicyRecipient ||
		v.policy == PolicyToken),
		k == kindSession && v.policy == PolicyToken:
		v.policy = PolicyConfig
	}
	return v
}

// sendCodes is what differs where a message may already be under way, or where one template must
// not stop an account.
var sendCodes = map[int]verdict{ //nolint:gochecknoglobals // a constant table
	// seen of messages that were sent, and of others that were not
	-1: {ReasonSystemError, PolicyUncertain},
	// undocumented: delivered, or a duplicate of what was
	40241: {"duplicate_in_60s", PolicyUncertain},
	// no observed use; perhaps the answer to a used client_msg_id
	44007: {"repeated_msg_id", PolicyUncertain},
	45065: {"client_msg_id_exists", PolicyUncertain}, // says that the message went before

	// Once spurious for a valid id, 23 times in 11 minutes. The pre-flight check catches bad ids.
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

// meaning is a verdict and its errcodes.
type meaning struct {
	reason Reason
	policy Policy
	codes  []int
}

// codes is what an errcode means, and what to do. Sources: WeChat's table of global return codes
// and, for the codes it does not have, recorded answers.
var codes = byCode([]meaning{ //nolint:gochecknoglobals // a constant table
	// Busy: the same call may succeed later.
	{ReasonSystemError, PolicyRetry, []int{-1, 20001, 61450}},
	// two sends to one person at once
	{"concurrent_send", PolicyRetry, []int{43108}},
	{"too_frequent", PolicyRetry, []int{45061}},
	// again after a minute
	{"client_msg_id_too_fast", PolicyRetry, []int{45066}},
	{"api_blocked_temporarily", PolicyRetry, []int{45102}},
	{"concurrent_tagging", PolicyRetry, []int{45169}},
	{"partly_failed", PolicyRetry, []int{45171}},
	{"system_busy", PolicyRetry, []int{268487001, 268487002}},
	// The access token.
	{"invalid_token", PolicyToken, []int{40001, 40014, 48012}},
	// we always send one; a proxy that drops it is not the message's fault
	{"token_missing", PolicyToken, []int{41001}},
	{"token_expired", PolicyToken, []int{42001, 42007}},
	// Quotas. A month's is tried again each day, rather than waited for in one piece.
	{"quota_month", PolicyQuotaDay, []int{43100, 45040, 48006}},
	{"quota_day", PolicyQuotaDay, []int{45009}},
	{"quota_minute", PolicyQuotaMinute, []int{45011}},
	{"quota_mass_send", PolicyQuotaDay, []int{45028}},
	{"quota_replies", PolicyQuotaDay, []int{45047}},
	{"quota_domain", PolicyQuotaDay, []int{45104}},
	// The person.
	{ReasonInvalidOpenID, PolicyRecipient, []int{40003}},
	{"risky_user", PolicyRecipient, []int{40226}},
	{ReasonNotFollower, PolicyRecipient, []int{43004, 50005}},
	{"not_friend", PolicyRecipient, []int{43005}},
	{"blocked_by_user", PolicyRecipient, []int{43006, 48002}},
	{"blacklisted", PolicyRecipient, []int{43019}},
	{ReasonRefused, PolicyRecipient, []int{43101}},
	{"recipient_later", PolicyRecipientLater, []int{43117}},
	{"reply_window_closed", PolicyRecipient, []int{45015}},
	{"user_unknown", PolicyRecipient, []int{46004}},
	{"openid_of_other_account", PolicyRecipient, []int{49003}},
	{"minor_protection", PolicyRecipient, []int{70000}},
	// The account, its permissions, its surroundings: nothing goes until a person acts.
	{"invalid_appid", PolicyConfig, []int{40013, 63178, 63183}},
	{ReasonInvalidTemplate, PolicyConfig, []int{40037}},
	{"ip_not_allowed", PolicyConfig, []int{40090, 40164, 45035, 61004}},
	{"wrong_secret", PolicyConfig, []int{40125}},
	{"callback_url", PolicyConfig, []int{40201}},
	{"wrong_site", PolicyConfig, []int{40222}},
	{"secret_frozen", PolicyConfig, []int{40243}},
	{"form_id_blocked", PolicyConfig, []int{41031, 41032, 41033, 41034, 41035}},
	{"template_not_subscription", PolicyConfig, []int{43102}},
	{"no_permission", PolicyConfig, []int{
		43103, 43104, 43105, 48001, 48003, 48008, 50001, 76022,
	}},
	{"punished", PolicyConfig, []int{43106, 45087, 45094, 50004}},
	{"capability_banned", PolicyConfig, []int{43107}},
	{"template_count_exceeded", PolicyConfig, []int{45026, 200012}},
	{"template_industry_conflict", PolicyConfig, []int{45027}},
	{"wrong_kind_of_token", PolicyConfig, []int{45063}},
	{"icp_license_missing", PolicyConfig, []int{45082}},
	// 45109: also: a mini program's token on an official account's call
	{"api_retired", PolicyConfig, []int{45103, 45109, 46101, 48009}},
	{"api_forbidden", PolicyConfig, []int{48004}},
	{"template_disabled", PolicyConfig, []int{48011}},
	{"account_limited", PolicyConfig, []int{50002}},
	{"account_frozen", PolicyConfig, []int{50007}},
	{"component_not_authorized", PolicyConfig, []int{61003, 61007, 61016, 61017}},
	{"ip_awaits_administrator", PolicyConfig, []int{89501, 89502, 89503, 89504, 89505}},
	{"ip_refused_by_administrator", PolicyConfig, []int{89506, 89507}},
	{"account_banned", PolicyConfig, []int{200011}},
	{"template_banned", PolicyConfig, []int{200013}},
	// The request itself.
	{"invalid_argument", PolicyRequest, []int{
		20002, 40035, 40097, 40202, 40203, 45072, 45080, 45081, 200001, 200002, 200014, 200016,
		200017, 200018, 200019, 200020, 200021, 200022, 200100, 9001001,
	}},
	{"invalid_grant_type", PolicyRequest, []int{40002}},
	{"invalid_media", PolicyRequest, []int{40007}},
	{"invalid_message_type", PolicyRequest, []int{40008}},
	{"invalid_code", PolicyRequest, []int{40029}},
	{"invalid_refresh_token", PolicyRequest, []int{40030}},
	{"invalid_openid_list", PolicyRequest, []int{40031, 40032, 45019, 63179, 63182}},
	{"invalid_charset", PolicyRequest, []int{40033, 47002}},
	{"invalid_template_size", PolicyRequest, []int{40034}},
	{"template_id_missing", PolicyRequest, []int{40036}},
	{"invalid_packaging", PolicyRequest, []int{40038}},
	{"invalid_url", PolicyRequest, []int{40039, 40048, 40066, 45051}},
	{"invalid_title", PolicyRequest, []int{40062}},
	{"malicious_url", PolicyRequest, []int{40068}},
	{"invalid_remark", PolicyRequest, []int{40092}},
	{"invalid_industry", PolicyRequest, []int{40102, 40103}},
	{"invalid_scene", PolicyRequest, []int{40129}},
	{"invalid_username", PolicyRequest, []int{40132}},
	{"code_used", PolicyRequest, []int{40163}},
	{"invalid_mini_path", PolicyRequest, []int{40165}},
	{"invalid_mini_appid", PolicyRequest, []int{40166}},
	{"invalid_encoding", PolicyRequest, []int{40221}},
	// only a send can meet it
	{"duplicate_in_60s", PolicyRequest, []int{40241}},
	{"invalid_keywords", PolicyRequest, []int{40246, 40247}},
	{"illegal_content", PolicyRequest, []int{40249, 45168}},
	{"argument_missing", PolicyRequest, []int{
		41002, 41003, 41004, 41008, 41009, 41018, 41021,
	}},
	{"invalid_form_id", PolicyRequest, []int{41028, 41029}},
	{"invalid_page", PolicyRequest, []int{41030}},
	{"refresh_token_expired", PolicyRequest, []int{42002}},
	{"code_expired", PolicyRequest, []int{42003}},
	{"wrong_method", PolicyRequest, []int{43001, 43002}},
	{"https_required", PolicyRequest, []int{43003}},
	{"template_banned", PolicyRequest, []int{43116}},
	{"empty_request", PolicyRequest, []int{44002, 44003, 44004, 44005}},
	{"repeated_msg_id", PolicyRequest, []int{44007}},
	{"too_large", PolicyRequest, []int{
		45001, 45002, 45003, 45004, 45005, 45006, 45007, 45008, 45010,
	}},
	{"template_too_large", PolicyRequest, []int{45012, 45013}},
	{"message_too_large", PolicyRequest, []int{45014}},
	{"invalid_group", PolicyRequest, []int{45016, 45017, 45018}},
	{"invalid_tag", PolicyRequest, []int{45056, 45057, 45058, 45059, 45157, 45158, 45159}},
	{"client_msg_id_exists", PolicyRequest, []int{45065}},
	{"client_msg_id_too_long", PolicyRequest, []int{45067}},
	{"not_existing", PolicyRequest, []int{46001, 46002, 46003, 46009}},
	{"data_format", PolicyRequest, []int{47001}},
	{ReasonInvalidKeyword, PolicyRequest, []int{47003}},
	{"invalid_rid", PolicyRequest, []int{76001, 76002, 76003, 76004}},
	{"unknown_path", PolicyRequest, []int{76021}},
	{"invalid_signature", PolicyRequest, []int{87009}},
	// quoted by several blogs as "invalid openid"
	{ReasonInvalidOpenID, PolicyRecipient, []int{-41000}},
})

func byCode(meanings []meaning) map[int]verdict {
	table := make(map[int]verdict)
	for _, m := range meanings {
		for _, code := range m.codes {
			table[code] = verdict{m.reason, m.policy}
		}
	}
	return table
}
