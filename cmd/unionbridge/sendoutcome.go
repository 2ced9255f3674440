package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/sender/requests"
)

type outcome requests.Outcome

func (o outcome) final() bool { return o.Status != "pending" && o.Status != "waiting" }

func (o outcome) news(before outcome) bool {
	return o.Status != before.Status || o.Attempts != before.Attempts ||
		orZero(o.Reason) != orZero(before.Reason)
}

// String is a line for people.
func (o outcome) String() string {
	line := fmt.Sprintf("request %d: %s", o.ID, o.Status)
	if o.Status == "sent" && o.MsgID != nil {
		return fmt.Sprintf("%s to %s, msgid %d", line, orZero(o.SentOpenID), *o.MsgID)
	}
	if o.Reason != nil {
		line += " (" + *o.Reason + ")"
	}
	if code := orZero(o.ErrCode); code != 0 {
		line += fmt.Sprintf(", errcode %d", code)
	}
	if o.ErrMsg != nil {
		line += ": " + *o.ErrMsg
	}
	return line
}

// explain says what WeChat's code means.
func (o outcome) explain(cures cures) string {
	return cures.of(o.AppID, orZero(o.Reason), orZero(o.ErrCode))
}

func (c *cli) printOutcome(o outcome, asJSON bool) error {
	if asJSON {
		return printJSON(c.stdout, o, "")
	}
	return printLine(c.stdout, o.String())
}

// verdict is nil only for a message that WeChat accepted. The line before has said the rest.
func verdict(o outcome, cures cures) error {
	if o.Status == "sent" {
		return nil
	}
	words := fmt.Sprintf("request %d was not sent: %s", o.ID, o.Status)
	if o.Status == "unknown" {
		words = fmt.Sprintf("request %d: whether it was sent is not known", o.ID)
	}
	if explanation := o.explain(cures); explanation != "" {
		words += "; " + explanation
	}
	return exitError{exitNotSent, errors.New(words)}
}

func stillOpen(o outcome, waited time.Duration, cures cures) error {
	why := "is it paused or due later? The daemon's log and account_state say more"
	switch code := orZero(o.ErrCode); {
	case o.Status == "waiting" && orZero(o.Reason) == string(wechat.ReasonNoGrant):
		why = "the recipient has not accepted the template; it goes out once they do"
	case o.Status == "waiting" && cures.mini(o.AppID):
		why = "the recipient is not known at the mini program yet; it goes out once they have " +
			"logged in and accepted the template"
	case o.Status == "waiting":
		why = "the recipient is not known as a follower yet; it goes out once they are"
	case o.Reason != nil || o.ErrCode != nil: // a daemon has claimed it, or paused its account
		why = orZero(o.Reason)
		if code != 0 {
			why = strings.TrimPrefix(fmt.Sprintf("%s, errcode %d", why, code), ", ")
		}
		why += "; " + cmp.Or(o.explain(cures), "the daemon's log and account_state say more")
	case o.Attempts == 0:
		why = `no daemon has claimed it. Check that "unionbridge run" uses this database, ` +
			`that the request is due, and that the account is not paused ("unionbridge status")`
	}
	return fmt.Errorf("request %d is still %s after %s: %s", o.ID, o.Status, waited, why)
}
