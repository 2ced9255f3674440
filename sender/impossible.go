package sender

import (
	"context"

	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// impossible reports whether a lane's rows are due, and of a template that no message can have.
func (a *account) impossible(l queue.Lane) bool {
	return l.Due && l.Status == queue.Pending && a.owns(l) && validPriority(l.Priority) && a.Templates.Impossible(l.Template)
}

// failImpossible ends due rows of templates that no message can have, and returns how many. Many
// lanes end with one statement: where somebody invents a template for each row, claims would have
// no place for others.
func (c *claimer) failImpossible(ctx context.Context) (ended int, err error) {
	if c.urgentOnly {
		return 0, nil
	}
	lanes, err := c.lanes.Pending(ctx, laneAge)
	if err != nil {
		return 0, err
	}
	var stuck []queue.Lane
	for _, l := range lanes {
		if c.impossible(l) && len(stuck) < queue.PageSize {
			stuck = append(stuck, l)
		}
	}
	for _, group := range queue.Group(stuck) {
		n, err := c.queue.FailUnroutable(ctx, queue.Unroutable{
			Lanes: group, Reason: channel.ReasonUnknownTemplate, Everywhere: true, DueOf: c.AppID,
			Message: c.Templates.Unknown(queue.TemplateMark),
		})
		if err != nil {
			return ended, err
		}
		ended += int(n)
		c.metrics.outcomes.WithLabelValues(
			c.AppID, string(queue.Failed), channel.ReasonUnknownTemplate).Add(float64(n))
	}
	if len(stuck) > 0 {
		c.lanes.Drop(stuck)
	}
	return ended, nil
}
