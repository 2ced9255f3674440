package main

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/sender/queue"
	"github.com/unionbridge/unionbridge/sender/requests"
)

// explainable is a request, and what WeChat's codes mean.
type explainable struct {
	requests.Detail
	cures cures
}

func explainRequest(d explainable) string {
	// What is said of a row that an operator had sent again concerns that time only.
	words, again := "", when(d.SentAgain(), " again")
	switch d.Status {
	case "pending":
		words = explainPending(d)
	case "waiting":
		words = explainWaiting(d)
	case "sent":
		words = explainSent(d)
	case "failed":
		words = "It was not sent" + again + ", and is not tried again." + meaning(d) + failedCure(d)
	case "expired":
		words = "expires_at passed before it could be sent" + again + ". To send it anyway: " +
			"unionbridge requests retry --ignore-expiry" + withdrawnFlag(d) + number(d)
	case "cancelled":
		if d.Reason == queue.ReasonErased {
			words = "Its recipient was erased, and what it said: whether a message was on its way " +
				"is not known. It cannot be sent again."
			break
		}
		words = "It was withdrawn before it was sent" + again + ". Its producer relies on " +
			"that; to send it anyway: unionbridge requests retry --withdrawn" + number(d)
	case "unknown":
		words = explainUnknown(d)
	}
	if d.SentAgain() && d.Final() && d.Status != "sent" {
		words += " An operator had it sent again; before that it was sent, or may have been: see " +
			"the warning."
	}
	if d.Archived {
		words += " It is in the archive; to send it again, INSERT a new one."
	}
	return words
}

func number(d explainable) string { return fmt.Sprintf(" %d", d.ID) }

func withdrawnFlag(d explainable) string { return when(d.Cancel, " --withdrawn") }

func when(condition bool, words string) string {
	if condition {
		return words
	}
	return ""
}

func explainPending(d explainable) string {
	switch {
	case d.UnderWay():
		return fmt.Sprintf("An attempt is under way since %s. If its instance died, the request "+
			"falls due again at %s.", localMoment(d.AttemptedAt), localMoment(&d.DueAt))
	case d.Leased:
		return fmt.Sprintf("The attempt of %s did not report back: its instance died, could not "+
			"reach the database, or the database refuses its outcome (unionbridge status says so). "+
			"%s%s", localMoment(d.AttemptedAt), repetition(d), obstacles(d))
	case d.Cancel && d.UncertainAt != nil:
		return "It was withdrawn, but an attempt was made before, whose outcome is not known: it " +
			"ends as unknown when it falls due."
	case d.Cancel:
		return "It was withdrawn: it is not sent, and ends as cancelled when it falls due."
	case d.Overdue:
		return "Its expires_at has passed: it ends as expired, or unknown if an attempt is in " +
			"doubt, when the daemon looks at it." + obstacles(d)
	case d.UncertainAt != nil:
		return "The outcome of an attempt is not known." + meaning(d) + " " + repetition(d) +
			obstacles(d)
	case !d.Due && d.Attempts > 0:
		return fmt.Sprintf("The last attempt failed; the next one is due at %s.%s%s",
			localMoment(&d.DueAt), meaning(d), obstacles(d))
	case !d.Due && d.Reason != "":
		return fmt.Sprintf("It was put off, and is tried again at %s.%s%s%s",
			localMoment(&d.DueAt), meaning(d), obstacles(d), pendingCure(d))
	case !d.Due:
		return fmt.Sprintf("It is not due before %s.", localMoment(&d.DueAt))
	}
	return "It is due." + meaning(d) + obstacles(d) + pendingCure(d)
}

// pendingCure is what an operator can do for a request that only waits for that.
func pendingCure(d explainable) string {
	if d.Reason != "unknown_template" {
		return ""
	}
	return " Correct the template in the configuration of every instance and restart them, or add " +
		"it to the account in WeChat's console. If the row itself names a wrong one, withdraw it: " +
		"unionbridge requests cancel" + number(d)
}

func repetition(d explainable) string {
	return fmt.Sprintf("It is repeated from %s on under the same client_msg_id, for as long as "+
		"WeChat drops a second message by that; after that it ends as unknown.",
		localMoment(&d.DueAt))
}

func obstacles(d explainable) string {
	words := ""
	for _, p := range d.Pauses {
		if p.ByOperator() {
			words += operatorPause(p)
			continue
		}
		if p.Punished() {
			words += fmt.Sprintf(" The account is paused since %s: %s.", localMoment(&p.Since),
				strings.TrimSuffix(oneLine(p.ErrMsg), "."))
			continue
		}
		what := "The account is paused"
		if p.Scope != "send" {
			what = "Of its account, " + p.Scope + " is paused"
		}
		until := "until the cause is fixed"
		if !p.Until.IsZero() {
			until = "until " + localMoment(&p.Until)
		}
		words += fmt.Sprintf(" %s %s: %s.", what, until, p.Reason)
		if explanation := d.cures.of(p.AppID, p.Reason, p.ErrCode); explanation != "" {
			words += " " + explanation
		}
	}
	if d.SentBy == "" {
		words += ` No daemon sends for its account at the moment: is "unionbridge run" running?`
	}
	if words == "" && d.Due && !d.Leased {
		words = " It goes out when its turn comes: more urgent requests go first, and send.rate " +
			"bounds them all."
	}
	return words
}

func operatorPause(p requests.Pause) string {
	what := "The account"
	if p.Paused().TemplateID != "" {
		what = "Its template"
	}
	return fmt.Sprintf(` %s is paused by an operator since %s: %s; "unionbridge resume" ends that.`,
		what, localMoment(&p.Since), strings.TrimSuffix(oneLine(p.ErrMsg), "."))
}

func explainWaiting(d explainable) string {
	if d.Cancel {
		return "It was withdrawn: it is not sent, and ends as cancelled when the daemon looks at it."
	}
	end, until := "failed (no_follower)", "within a minute of them following"
	mini := d.cures.mini(d.AppID) || d.Reason == string(wechat.ReasonNoGrant)
	switch {
	case d.FallbackFrom != "":
		end = "failed (" + d.Reason + ")"
		until = "when they follow the official account, or accept the template, after both accounts were " +
			"refused"
	case mini && d.Reason != string(wechat.ReasonNoGrant):
		end = "failed (" + d.Reason + ")"
		until = "within seconds of their login at the mini program, if they have accepted the template"
	case mini:
		end, until = "failed (no_grant)", "within seconds of them accepting the template"
	}
	if d.ExpiresAt != nil && !d.ExpiresAt.After(d.DueAt) {
		end = "expired"
	}
	if d.UncertainAt != nil {
		end = "unknown"
	}
	return fmt.Sprintf("It waits for its recipient, and goes out %s.%s At %s it ends as %s.",
		until, meaning(d), localMoment(&d.DueAt), end)
}

func explainSent(d explainable) string {
	if d.Reason == "resolved_by_operator" {
		return "Its outcome was unknown, and an operator said that it was sent."
	}
	const missed = "WeChat accepted it. The receipt says that the person did not get it: "
	switch {
	case d.ReceiptStatus == "":
		return "WeChat accepted it. No receipt says yet whether the person got it."
	case d.ReceiptStatus == "success":
		return "WeChat accepted it. The receipt says that the person got it."
	case strings.Contains(d.ReceiptStatus, "block"):
		return missed + "they refuse the account's messages."
	}
	return missed + "WeChat failed to deliver it."
}

func explainUnknown(d explainable) string {
	return "It was sent once or not at all: an attempt's outcome is not known, and repeating it " +
		"later would reach the person twice." + meaning(d) + " Ask the person, or look into " +
		"their chat, and then: unionbridge requests resolve" + number(d) + " --sent, or --resend" +
		withdrawnFlag(d) + "."
}

// failedCure is what an operator can do. A row that is wrong in itself fails the same way again.
func failedCure(d explainable) string {
	const again = " The row itself is wrong and cannot be repaired: its producer has to INSERT " +
		"a new one."
	retry := "unionbridge requests retry" + withdrawnFlag(d) + number(d)
	switch d.Reason {
	case "no_recipient", "several_recipients", "bad_recipient", "bad_data", "bad_link",
		"bad_priority", "bad_keyword", "invalid_keyword_value", "data_format", "invalid_charset", "illegal_content",
		"invalid_template_size", "template_too_large", "message_too_large", "too_large",
		"invalid_url", "malicious_url", "invalid_mini_path", "openid_of_other_account":
		return again
	case "invalid_openid":
		if d.OpenID != "" { // named by the row; another one comes from the map, which learns
			return again
		}
	case "unknown_template":
		return " If its template is misspelt, its producer has to INSERT a new one. If not, add " +
			"it to templates in the configuration of every instance and restart them, or to the " +
			"account in WeChat's console, and then: " + retry
	case "refused_by_user", "blacklisted", "blocked_by_user":
		return ""
	}
	return " Once the cause is gone: " + retry
}

// meaning says what a reason means: by WeChat's code, by the reason, or in the row's words.
func meaning(d explainable) string {
	if explanation := d.cures.of(d.AppID, d.Reason, d.ErrCode); explanation != "" {
		return " " + explanation
	}
	words := map[string]string{
		"no_grant":           "The recipient has not accepted the template, or not often enough.",
		"not_delivered":      "WeChat took the message, and could not deliver it.",
		"no_follower":        "The recipient did not become a follower in time.",
		"unknown_account":    "Its account is not in the configuration of any instance, or is a mini program that does not send.",
		"timeout":            "WeChat did not answer within wechat.send_timeout.",
		"connection_lost":    "The connection ended before the answer.",
		"server_error":       "WeChat, or something on the way, answered with an HTTP error 5xx.",
		"bad_answer":         "The answer was empty, cut or not WeChat's.",
		"cancelled_too_late": "It was withdrawn when that attempt had been made already.",
		"outcome_unknown":    "The time in which it could be repeated safely is over.",
		"unreachable":        "WeChat could not be reached.",
	}[d.Reason]
	switch {
	case words != "":
		return " " + words
	case d.ErrMsg != "" && d.ErrCode == 0:
		return " " + sentence(d.ErrMsg)
	case d.Reason != "":
		return " docs/states.md says what " + d.Reason + " means."
	}
	return ""
}

// sentence begins with a capital, but for a key or a column: data.time2, expires_at, url.
func sentence(text string) string {
	text = strings.TrimSuffix(oneLine(text), ".") + "."
	word, _, _ := strings.Cut(text, " ")
	first, size := utf8.DecodeRuneInString(text)
	columns := []string{"url", "data", "unionid", "openid", "appid", "priority", "template"}
	if strings.ContainsAny(word, "._") || slices.Contains(columns, word) {
		return text
	}
	return string(unicode.ToUpper(first)) + text[size:]
}
