package wechat

// classify looks an errcode up: its meaning on this endpoint, else its general one.
func classify(e endpoint, code int) verdict {
	if v, ok := special(e, code); ok {
		return v
	}
	v, known := codes[code]
	switch {
	case known:
	case e.kind == kindRead:
		v = verdict{ReasonUnknownCode, PolicyRetry}
	default: // a send with an unknown code must not be repeated
		v = verdict{ReasonUnknownCode, PolicyRequest}
	}
	return e.kind.adapt(v)
}

// special holds the codes that mean something else on one endpoint.
func special(e endpoint, code int) (verdict, bool) {
	switch {
	case e.path == EndpointFollowers && code == 40003:
		return verdict{ReasonInvalidCursor, PolicyRequest}, true
	case e.kind == kindToken && code == 40001, e.kind == kindSession && code == 40001:
		return verdict{"wrong_secret", PolicyConfig}, true
	case e.kind == kindSession && code == 45011:
		// 100 logins a minute per person, not per account.
		return verdict{"quota_minute", PolicyRecipientLater}, true
	}
	if v, ok := subscribeCodes[code]; ok && e.path == EndpointSendSubscribe {
		return v, true
	}
	v, ok := sendCodes[code]
	return v, ok && e.kind == kindSend
}

// adapt keeps the failures of a token call from being blamed on the message or person it was needed
// for: what is not transient or a quota there concerns the account. A session call carries no
// access token that could be renewed.
func (k kind) adapt(v verdict) verdict {
	switch v.policy {
	case PolicyRequest, PolicyRecipient:
		if k == kindToken {
			v.policy = PolicyConfig
		}
	case PolicyToken:
		if k == kindToken || k == kindSession {
			v.policy = PolicyConfig
		}
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

// subscribeCodes is what differs for subscribe messages, which have no client_msg_id: a message
// that may be under way can never be repeated.
var subscribeCodes = map[int]verdict{ //nolint:gochecknoglobals // a constant table
	// Never accepted, used up, or switched off: WeChat says one thing for the three.
	43101: {ReasonNoGrant, PolicyRecipient},
	// Each calls itself a system error, and so may have queued the message as -1 may.
	20001: {ReasonSystemError, PolicyUncertain},
	61450: {ReasonSystemError, PolicyUncertain},
}

// codes is what an errcode means, and what to do. Sources: WeChat's table of global return codes
// and, for the codes it does not have, recorded answers.
var codes = byCode(map[verdict][]int{ //nolint:gochecknoglobals // a constant table
	// Busy: the same call may succeed later.
	{ReasonSystemError, PolicyRetry}:         {-1, 20001, 61450},
	{"concurrent_send", PolicyRetry}:         {43108}, // two sends to one person at once
	{"too_frequent", PolicyRetry}:            {45061},
	{"client_msg_id_too_fast", PolicyRetry}:  {45066}, // again after a minute
	{"api_blocked_temporarily", PolicyRetry}: {45102},
	{"concurrent_tagging", PolicyRetry}:      {45169},
	{"partly_failed", PolicyRetry}:           {45171},
	{"system_busy", PolicyRetry}:             {268487001, 268487002},
	// The access token.
	{"invalid_token", PolicyToken}: {40001, 40014, 48012},
	// we always send one; a proxy that drops it is not the message's fault
	{"token_missing", PolicyToken}: {41001},
	{"token_expired", PolicyToken}: {42001, 42007},
	// Quotas. A month's is tried again each day, rather than waited for in one piece.
	{"quota_month", PolicyQuotaDay}:     {43100, 45040, 48006},
	{"quota_day", PolicyQuotaDay}:       {45009},
	{"quota_minute", PolicyQuotaMinute}: {45011},
	{"quota_mass_send", PolicyQuotaDay}: {45028},
	{"quota_replies", PolicyQuotaDay}:   {45047},
	{"quota_domain", PolicyQuotaDay}:    {45104},
	// The person.
	{ReasonInvalidOpenID, PolicyRecipient}:       {40003, -41000}, // -41000: in several blogs
	{"risky_user", PolicyRecipient}:              {40226},
	{ReasonNotFollower, PolicyRecipient}:         {43004, 50005},
	{"not_friend", PolicyRecipient}:              {43005},
	{"blocked_by_user", PolicyRecipient}:         {43006, 48002},
	{"blacklisted", PolicyRecipient}:             {43019},
	{ReasonRefused, PolicyRecipient}:             {43101},
	{"recipient_later", PolicyRecipientLater}:    {43117},
	{"reply_window_closed", PolicyRecipient}:     {45015},
	{"user_unknown", PolicyRecipient}:            {46004},
	{"openid_of_other_account", PolicyRecipient}: {49003},
	{"minor_protection", PolicyRecipient}:        {70000},
	// The account, its permissions, its surroundings: nothing goes until a person acts.
	{"invalid_appid", PolicyConfig}:             {40013, 63178, 63183},
	{ReasonInvalidTemplate, PolicyConfig}:       {40037},
	{"ip_not_allowed", PolicyConfig}:            {40090, 40164, 45035, 61004},
	{"wrong_secret", PolicyConfig}:              {40125},
	{"callback_url", PolicyConfig}:              {40201},
	{"wrong_site", PolicyConfig}:                {40222},
	{"secret_frozen", PolicyConfig}:             {40243},
	{"form_id_blocked", PolicyConfig}:           {41031, 41032, 41033, 41034, 41035},
	{"template_not_subscription", PolicyConfig}: {43102},
	{ReasonNoPermission, PolicyConfig}: {43103, 43104, 43105, 48001, 48003,
		48008, 50001, 76022},
	{"punished", PolicyConfig}:                   {43106, 45087, 45094, 50004},
	{"capability_banned", PolicyConfig}:          {43107},
	{"template_count_exceeded", PolicyConfig}:    {45026, 200012},
	{"template_industry_conflict", PolicyConfig}: {45027},
	{"wrong_kind_of_token", PolicyConfig}:        {45063},
	{"icp_license_missing", PolicyConfig}:        {45082},
	// 45109: also: a mini program's token on an official account's call
	{"api_retired", PolicyConfig}:                 {45103, 45109, 46101, 48009},
	{"api_forbidden", PolicyConfig}:               {48004},
	{"template_disabled", PolicyConfig}:           {48011},
	{"account_limited", PolicyConfig}:             {50002},
	{"account_frozen", PolicyConfig}:              {50007},
	{"component_not_authorized", PolicyConfig}:    {61003, 61007, 61016, 61017},
	{"ip_awaits_administrator", PolicyConfig}:     {89501, 89502, 89503, 89504, 89505},
	{"ip_refused_by_administrator", PolicyConfig}: {89506, 89507},
	{"account_banned", PolicyConfig}:              {200011},
	{"template_banned", PolicyConfig}:             {200013},
	// The request itself.
	{"invalid_argument", PolicyRequest}: {
		20002, 40035, 40097, 40202, 40203, 45072, 45080, 45081, 200001, 200002, 200014, 200016,
		200017, 200018, 200019, 200020, 200021, 200022, 200100, 9001001,
	},
	{"invalid_grant_type", PolicyRequest}:    {40002},
	{"invalid_media", PolicyRequest}:         {40007},
	{"invalid_message_type", PolicyRequest}:  {40008},
	{"invalid_code", PolicyRequest}:          {40029},
	{"invalid_refresh_token", PolicyRequest}: {40030},
	{"invalid_openid_list", PolicyRequest}:   {40031, 40032, 45019, 63179, 63182},
	{"invalid_charset", PolicyRequest}:       {40033, 47002},
	{"invalid_template_size", PolicyRequest}: {40034},
	{"template_id_missing", PolicyRequest}:   {40036},
	{"invalid_packaging", PolicyRequest}:     {40038},
	{"invalid_url", PolicyRequest}:           {40039, 40048, 40066, 45051},
	{"invalid_title", PolicyRequest}:         {40062},
	{"malicious_url", PolicyRequest}:         {40068},
	{"invalid_remark", PolicyRequest}:        {40092},
	{"invalid_industry", PolicyRequest}:      {40102, 40103},
	{"invalid_scene", PolicyRequest}:         {40129},
	{"invalid_username", PolicyRequest}:      {40132},
	{"code_used", PolicyRequest}:             {40163},
	{"invalid_mini_path", PolicyRequest}:     {40165},
	{"invalid_mini_appid", PolicyRequest}:    {40166},
	{"invalid_encoding", PolicyRequest}:      {40221},
	{"duplicate_in_60s", PolicyRequest}:      {40241}, // only a send can meet it
	{"invalid_keywords", PolicyRequest}:      {40246, 40247},
	{"illegal_content", PolicyRequest}:       {40249, 45168},
	{"argument_missing", PolicyRequest}:      {41002, 41003, 41004, 41008, 41009, 41018, 41021},
	{"invalid_form_id", PolicyRequest}:       {41028, 41029},
	{"invalid_page", PolicyRequest}:          {41030},
	{"refresh_token_expired", PolicyRequest}: {42002},
	{"code_expired", PolicyRequest}:          {42003},
	{"wrong_method", PolicyRequest}:          {43001, 43002},
	{"https_required", PolicyRequest}:        {43003},
	{"template_banned", PolicyRequest}:       {43116},
	{"empty_request", PolicyRequest}:         {44002, 44003, 44004, 44005},
	{"repeated_msg_id", PolicyRequest}:       {44007},
	{"too_large", PolicyRequest}: {45001, 45002, 45003, 45004, 45005, 45006,
		45007, 45008, 45010},
	{"template_too_large", PolicyRequest}:     {45012, 45013},
	{"message_too_large", PolicyRequest}:      {45014},
	{"invalid_group", PolicyRequest}:          {45016, 45017, 45018},
	{"invalid_tag", PolicyRequest}:            {45056, 45057, 45058, 45059, 45157, 45158, 45159},
	{"client_msg_id_exists", PolicyRequest}:   {45065},
	{"client_msg_id_too_long", PolicyRequest}: {45067},
	{"not_existing", PolicyRequest}:           {46001, 46002, 46003, 46009},
	{"data_format", PolicyRequest}:            {47001},
	{ReasonInvalidKeyword, PolicyRequest}:     {47003},
	{"invalid_rid", PolicyRequest}:            {76001, 76002, 76003, 76004},
	{"unknown_path", PolicyRequest}:           {76021},
	{"invalid_signature", PolicyRequest}:      {87009},
})

func byCode(meanings map[verdict][]int) map[int]verdict {
	table := make(map[int]verdict)
	for v, list := range meanings {
		for _, code := range list {
			table[code] = v
		}
	}
	return table
}
