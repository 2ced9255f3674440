package sender

import (
	"database/sql"
	"slices"

	"github.com/unionbridge/unionbridge/sender/queue"
	"github.com/unionbridge/unionbridge/sender/route"
)

// priorityUrgent is send_request.priority of what goes before everything else, lowestPriority of
// what goes last.
const (
	priorityUrgent = 0
	lowestPriority = 2
)

// claimable returns how many rows of a pending lane, up to limit, this account may claim now.
func (a *account) claimable(l queue.Lane, limit int) int {
	if !l.Due || l.Status != queue.Pending || !a.owns(l) || !validPriority(l.Priority) || a.impossible(l) {
		return 0
	}
	return a.throttle.Claimable(l.Priority == priorityUrgent, a.Templates.Known(l.Template, a.AppID), limit)
}

// configured reports whether a lane's template is an alias of the configuration.
func (a *account) configured(l queue.Lane) bool {
	_, alias := a.Templates[l.Template]
	return alias
}

// kindOf is the kind of an account that is configured.
func kindOf(cfg Config, appid string) route.Kind {
	if slices.Contains(cfg.MiniAppIDs, appid) {
		return route.Mini
	}
	return route.Official
}

func validPriority(priority int) bool { return priority >= 0 && priority <= lowestPriority }

// aliasLanes are the pending lanes of all templates that the configuration names for the accounts.
func aliasLanes(cfg Config, rules *route.Rules) (lanes []queue.Lane) {
	for _, a := range cfg.Accounts {
		for alias := range cfg.Templates {
			if cfg.Templates.Known(alias, a.AppID) == "" {
				continue
			}
			appids := []sql.NullString{{String: a.AppID, Valid: true}}
			if rules.Home(alias) == a.AppID {
				// Some producers write '' where they mean NULL.
				appids = append(appids, sql.NullString{}, sql.NullString{Valid: true})
			}
			for priority := range lowestPriority + 1 {
				for _, appid := range appids {
					lanes = append(lanes, queue.Lane{
						Status: queue.Pending, AppID: appid, Priority: priority, Template: alias,
					})
				}
			}
		}
	}
	return lanes
}
