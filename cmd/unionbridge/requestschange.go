package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/unionbridge/unionbridge/sender/requests"
)

const withdrawnUsage = "send also what its producer has withdrawn"

type retryFlags struct {
	filterFlags
	options requests.RetryOptions
	yes     bool
}

func (c *cli) retryRequestsCommand() *cobra.Command {
	var f retryFlags
	cmd := &cobra.Command{
		Use:   "retry {ID… | --status STATUS [filters] --yes}",
		Short: "Give requests that failed or expired back to the daemon",
		Long: `Give requests that failed or expired back to the daemon: pending, due now, with all their attempts.
Their history (reason, errcode, errmsg, attempts) is cleared.

What was sent, or may have been, is refused: WeChat drops a second message only within 10 minutes of
the first attempt, after that the person gets it twice. --force does it anyway. So is what was
withdrawn, for its producer may have read that it is never sent: --withdrawn. The row's warning says
either from then on.

By filter, the matching requests are counted first; with --yes they are retried. --depth bounds the
search as with list.

Exit code 1: not all of them were retried.`,
		Example: `  unionbridge requests retry 4711 4712
  unionbridge requests retry --status failed --reason invalid_template --since 2h --yes`,
	}
	f.register(cmd, 0)
	flags := cmd.Flags()
	flags.BoolVar(&f.options.Force, "force", false, "repeat also what was sent or may have been")
	flags.BoolVar(&f.options.Withdrawn, "withdrawn", false, withdrawnUsage)
	flags.BoolVar(&f.options.IgnoreExpiry, "ignore-expiry", false,
		"take expires_at away where it has passed")
	flags.BoolVar(&f.options.Now, "now", false,
		"make pending and waiting requests due now; those whose recipient cannot be reached wait again")
	flags.BoolVar(&f.yes, "yes", false, "retry all that match the filters, not only count them")
	cmd.RunE = c.work(func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return c.retryIDs(cmd, args, f)
		}
		return c.retryMatching(cmd.Context(), f)
	})
	return cmd
}

func (c *cli) retryIDs(cmd *cobra.Command, args []string, f retryFlags) error {
	ids, err := requestIDs(args)
	if err != nil {
		return err
	}
	for _, name := range []string{"status", "reason", "account", "application", "template", "since", "until",
		"recipient", "dedup-key", "msgid", "yes"} {
		if cmd.Flags().Changed(name) {
			return usageError("either ids or filters: --%s goes without ids", name)
		}
	}
	return c.withRequests(cmd.Context(), func(q requests.Store) error {
		changes, err := q.Retry(cmd.Context(), ids, f.options)
		return errors.Join(c.printChanges(changes, "retried"), requestsError(err))
	})
}

func (c *cli) retryMatching(ctx context.Context, f retryFlags) error {
	filter, err := f.filter(time.Now())
	if err == nil && len(f.Statuses) == 0 {
		err = errors.New("which requests? Name ids, or --status and other filters")
	}
	if err != nil {
		return exitError{exitUsage, err}
	}
	return c.withRequests(ctx, func(q requests.Store) error {
		n, cut, err := q.Count(ctx, filter)
		if err != nil {
			return requestsError(err)
		}
		_, _ = fmt.Fprintf(c.stdout, "matching requests: %d\n", n)
		if cut {
			_, _ = fmt.Fprintf(c.stderr, "the search ended after %d rows; older ones were not "+
				"looked at\n", f.Depth)
		}
		if n == 0 {
			return nil
		}
		if !f.yes {
			return usageError("nothing was changed: --yes retries them")
		}
		outcomes := map[string]int{}
		err = q.RetryMatching(ctx, filter, f.options, func(changes []requests.Change) {
			for _, change := range changes {
				outcomes[change.Refused]++
			}
		})
		return errors.Join(c.printOutcomes(outcomes), requestsError(err))
	})
}

func (c *cli) printOutcomes(outcomes map[string]int) error {
	_, _ = fmt.Fprintf(c.stdout, "%d retried\n", outcomes[""])
	refused := 0
	for _, why := range slices.Sorted(maps.Keys(outcomes)) {
		if why != "" {
			refused += outcomes[why]
			_ = printLine(c.stdout, fmt.Sprintf("%d refused: %s", outcomes[why], why))
		}
	}
	if refused > 0 {
		return fmt.Errorf("%d of %d were not retried", refused, refused+outcomes[""])
	}
	return nil
}

func (c *cli) cancelRequestsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cancel ID…",
		Short: "Withdraw requests, as their producer would, and say what became of them",
		Long: `Withdraw requests, as their producer would with UPDATE send_request SET cancel = 1, and say what
became of them. A request is either cancelled or sent, never both: of one that is under way at this
moment, the result decides.

Exit code 1: not all of them are cancelled.`,
		Args: cobra.MinimumNArgs(1),
		RunE: c.work(func(cmd *cobra.Command, args []string) error {
			ids, err := requestIDs(args)
			if err != nil {
				return err
			}
			return c.withRequests(cmd.Context(), func(q requests.Store) error {
				changes, err := q.Cancel(cmd.Context(), ids)
				return errors.Join(c.printChanges(changes, "cancelled"), requestsError(err))
			})
		}),
	}
}

func (c *cli) resolveRequestCommand() *cobra.Command {
	var sent, resend bool
	var msgid int64
	var options requests.RetryOptions // of --resend
	cmd := &cobra.Command{
		Use:   "resolve ID {--sent [--msgid N] | --resend}",
		Short: "Say what became of a request whose outcome is unknown",
		Long: `Say what became of a request whose outcome is unknown. --sent: the person got it; the row becomes sent,
reason resolved_by_operator. --resend: they did not; the row is pending again, due now. If they did get
it after all, and more than 10 minutes ago, they get it twice. One that was withdrawn meanwhile takes
--withdrawn too.

Exit code 1: the request's outcome is known, it was withdrawn, the msgid is another message's, or there
is no such request.`,
		Args: cobra.ExactArgs(1),
	}
	flags := cmd.Flags()
	flags.BoolVar(&sent, "sent", false, "it was sent")
	flags.BoolVar(&resend, "resend", false, "it was not: send it again")
	flags.Int64Var(&msgid, "msgid", 0,
		"WeChat's `number` of the message, with --sent, if it is known: a receipt is found by it")
	flags.BoolVar(&options.Withdrawn, "withdrawn", false, "with --resend: "+withdrawnUsage)
	flags.BoolVar(&options.IgnoreExpiry, "ignore-expiry", false,
		"with --resend: take expires_at away where it has passed")
	cmd.MarkFlagsMutuallyExclusive("sent", "resend")
	cmd.MarkFlagsOneRequired("sent", "resend")
	cmd.MarkFlagsMutuallyExclusive("resend", "msgid")
	cmd.MarkFlagsMutuallyExclusive("sent", "ignore-expiry")
	cmd.MarkFlagsMutuallyExclusive("sent", "withdrawn")
	cmd.RunE = c.work(func(cmd *cobra.Command, args []string) error {
		ids, err := requestIDs(args)
		if err != nil {
			return err
		}
		if cmd.Flags().Changed("msgid") && msgid < 1 {
			return usageError("--msgid %d is not one of WeChat's, which are above zero; leave it out "+
				"if it is not known", msgid)
		}
		return c.withRequests(cmd.Context(), func(q requests.Store) error {
			var change requests.Change
			done := "sent"
			if sent {
				change, err = q.ResolveSent(cmd.Context(), ids[0], msgid)
			} else {
				done = "given back to the daemon"
				change, err = q.ResolveResend(cmd.Context(), ids[0], options)
			}
			if err != nil {
				return requestsError(err)
			}
			return c.printChanges([]requests.Change{change}, done)
		})
	})
	return cmd
}

func (c *cli) printChanges(changes []requests.Change, done string) error {
	var refused []error
	for _, change := range changes {
		name := fmt.Sprintf("request %d", change.ID)
		if change.Refused == "" {
			_, _ = fmt.Fprintf(c.stdout, "%s: %s\n", name, done)
			continue
		}
		if change.Status != "" {
			name += " (" + change.Status + ")"
		}
		refused = append(refused, fmt.Errorf("%s: %s", name, change.Refused))
	}
	return errors.Join(refused...)
}
