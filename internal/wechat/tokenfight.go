package wechat

import "time"

const (
	// freshFor is the age under which the death of a token is nobody's expiry but somebody's doing. Two programs that
	// fetch classic tokens in turn leave each of them a life of 5 to 10 minutes: WeChat keeps the old one for 5 after
	// each fetch, and the other program notices its own loss no sooner.
	freshFor = 20 * time.Minute

	// fightDeaths within fightWindow are a fight. One early death is an operator's forced refresh or a reset AppSecret,
	// two may be that and its undoing.
	fightDeaths = 3
	fightWindow = time.Hour

	// fightAlarm is how long one alarm serves.
	fightAlarm = time.Hour
)

// fight recognises that somebody else ends this account's tokens. It is guarded by tokenSource.mu.
type fight struct {
	deaths  []time.Time // the last fightDeaths early ones
	alarmed time.Time
}

// bury notes that a token was refused and replaced by another one.
func (f *fight) bury(t *issued, now time.Time) {
	ripe := !now.Before(t.expires.Add(-renewBefore)) // WeChat itself swaps it then
	if ripe || now.Sub(t.born) >= freshFor {
		return
	}
	f.deaths = append(f.deaths, now)
	f.deaths = f.deaths[max(0, len(f.deaths)-fightDeaths):]
}

func (f *fight) on(now time.Time) bool {
	return len(f.deaths) == fightDeaths && now.Sub(f.deaths[0]) < fightWindow
}

// alarm reports whether it is time to say so.
func (f *fight) alarm(now time.Time) bool {
	if !f.on(now) || !f.alarmed.IsZero() && now.Sub(f.alarmed) < fightAlarm {
		return false
	}
	f.alarmed = now
	return true
}
