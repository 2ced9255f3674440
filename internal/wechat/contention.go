package wechat

import "time"

const (
	// freshFor is the age under which a token was not lost by expiry, but ended by another program.
	// Two programs that fetch classic tokens in turn leave each of them a life of 5 to 10 minutes:
	// WeChat keeps the old one for 5 after each fetch, when the other program notices its loss.
	freshFor = 20 * time.Minute

	// contentionLosses within contentionWindow are contention. One early death is an operator's
	// forced refresh or a reset AppSecret, two may be that and its undoing.
	contentionLosses = 3
	contentionWindow = time.Hour

	// alarmInterval is how long one alarm serves.
	alarmInterval = time.Hour
)

// contention detects that another program ends this account's tokens; tokenSource.mu guards it.
type contention struct {
	losses  []time.Time // the last contentionLosses early ones
	alarmed time.Time
}

func (c *contention) recordLoss(t *token, now time.Time) {
	ripe := !now.Before(t.expires.Add(-renewBefore)) // WeChat itself swaps it then
	if ripe || now.Sub(t.born) >= freshFor {
		return
	}
	c.losses = append(c.losses, now)
	c.losses = c.losses[max(0, len(c.losses)-contentionLosses):]
}

func (c *contention) active(now time.Time) bool {
	return len(c.losses) == contentionLosses && now.Sub(c.losses[0]) < contentionWindow
}

func (c *contention) alarm(now time.Time) bool {
	if !c.active(now) || !c.alarmed.IsZero() && now.Sub(c.alarmed) < alarmInterval {
		return false
	}
	c.alarmed = now
	return true
}
