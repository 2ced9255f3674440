package applications

import (
	"fmt"
	"strconv"
	"strings"
)

// Reason says why a call was refused: a metric's label, and a word of the log.
type Reason string

// The reasons that callers tell apart.
const (
	ReasonAppID       Reason = "unknown_appid" // 40013
	ReasonSecret      Reason = "wrong_secret"  // 40125
	ReasonManySecrets Reason = "many_secrets"  // 45011
	ReasonNetwork     Reason = "wrong_network" // 40164
	ReasonToken       Reason = "invalid_token" // 40001
	ReasonExpired     Reason = "expired_token" // 42001
	ReasonForbidden   Reason = "forbidden"     // 48001
	ReasonMinute      Reason = "minute_quota"  // 45011
	ReasonDay         Reason = "day_quota"     // 45009
	reasonNoToken     Reason = "missing_token" // 41001
)

// Refusal is an answer to a caller: final, and no fault of ours. Its text is for the caller and
// holds no secret.
type Refusal struct {
	Reason  Reason
	Code    int    // WeChat's errcode
	Message string // WeChat's errmsg, followed by words of ours where they help
}

// Error returns the message with its code.
func (r *Refusal) Error() string { return strconv.Itoa(r.Code) + " " + r.Message }

// refusal returns the answer for a reason. The words are WeChat's, by which SDKs and people
// recognise an error; detail is the application's name, an address or an amount.
func refusal(reason Reason, detail string) *Refusal {
	code, message := 0, ""
	switch reason {
	case ReasonAppID:
		code, message = 40013, "invalid appid"
	case ReasonSecret:
		code, message = 40125, "invalid appsecret"
	case ReasonManySecrets:
		code, message = 45011, "api minute-quota reach limit, must slower, retry next minute: too many "+
			"wrong secrets from this address"
	case ReasonNetwork:
		code = 40164
		message = fmt.Sprintf("invalid ip %s, not in whitelist: networks of this application", detail)
	case ReasonToken:
		code, message = 40001, "invalid credential, access_token is invalid or not latest"
	case reasonNoToken:
		code, message = 41001, "access_token missing"
	case ReasonExpired:
		code, message = 42001, "access_token expired"
	case ReasonForbidden:
		code, message = 48001, "api unauthorized: not allowed to application "+detail
	case ReasonMinute:
		code, message = 45011, "api minute-quota reach limit, must slower, retry next minute: "+detail
	case ReasonDay:
		code, message = 45009, "reach max api daily quota limit: "+detail
	}
	return &Refusal{Reason: reason, Code: code, Message: strings.TrimSpace(message)}
}
