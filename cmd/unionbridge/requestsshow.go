package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/sender/requests"
)

func (c *cli) showRequestCommand() *cobra.Command {
	var asJSON, withData bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show all of one request, and say what happens to it next",
		Long: `Show all of one request, with WeChat's receipt where one arrived, and say what its state means and
what happens next. Archived requests are found too. The message itself is personal data: --data.

Exit code 1: there is no such request.`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	cmd.Flags().BoolVar(&withData, "data", false, "show the message's values too")
	cmd.RunE = c.work(func(cmd *cobra.Command, args []string) error {
		ids, err := requestIDs(args)
		if err != nil {
			return err
		}
		return c.withRequests(cmd.Context(), func(q requests.Store) error {
			d, err := q.Show(cmd.Context(), ids[0])
			if errors.Is(err, requests.ErrNotFound) {
				return fmt.Errorf("request %d is not in send_request, nor in its archive: is the "+
					"number right, and was it deleted (retention)?", ids[0])
			}
			if err != nil {
				return requestsError(err)
			}
			if !withData {
				d.Data = ""
			}
			d.Pauses = concerning(c.cfg, d)
			if asJSON {
				return c.printRequestJSON(d)
			}
			return c.printRequest(d)
		})
	})
	return cmd
}

// concerning keeps the pauses that the request meets: its account's, and its template's.
func concerning(cfg *config.Config, d requests.Detail) []requests.Pause {
	return slices.DeleteFunc(d.Pauses, func(p requests.Pause) bool {
		id := p.Paused().TemplateID
		return id != "" && id != d.Template && id != templateIDs(cfg).Known(d.Template, p.AppID)
	})
}

func requestIDs(args []string) ([]int64, error) {
	var ids []int64
	seen := map[int64]bool{}
	for _, arg := range args {
		id, err := strconv.ParseInt(arg, 10, 64)
		if err != nil || id < 1 {
			return nil, usageError("%q is not a request's id: a number, the column id of "+
				"send_request", arg)
		}
		if !seen[id] {
			seen[id], ids = true, append(ids, id)
		}
	}
	return ids, nil
}

func (c *cli) printRequest(d requests.Detail) error {
	var rows [][]string
	line := func(name, value string) {
		if value != "" && value != "-" {
			rows = append(rows, []string{name, value})
		}
	}
	line("request", strconv.FormatInt(d.ID, 10))
	line("status", statusWords(d.Record))
	line("reason", d.Reason)
	if d.ErrCode != 0 {
		line("errcode", strconv.Itoa(d.ErrCode))
	}
	line("errmsg", d.ErrMsg)
	line("warning", d.Warning)
	line("account", cmp.Or(d.AppID, "the default account, not claimed yet"))
	line("route", d.Route)
	line("moved from", movedWords(d.Record))
	line("application", d.Application)
	line("template", d.Template)
	line("recipient", recipientWords(d))
	line("url", d.URL)
	line("mini path", d.MiniPath)
	line("priority", fmt.Sprintf("%d (%s)", d.Priority,
		map[int]string{0: "urgent", 1: "normal", 2: "bulk"}[d.Priority]))
	line("dedup key", d.DedupKey)
	line("inserted", localMoment(&d.CreatedAt))
	if d.WishedAt != nil && !d.WishedAt.Equal(d.DueAt) { // due_at has moved
		line("wished", localMoment(d.WishedAt))
	}
	line("due", localMoment(&d.DueAt))
	line("expires", localMoment(d.ExpiresAt))
	line("attempts", strconv.Itoa(d.Attempts))
	line("last attempt", localMoment(d.AttemptedAt))
	line("uncertain since", localMoment(d.UncertainAt))
	line("ended", localMoment(d.FinishedAt))
	line("sent to", d.SentOpenID)
	if d.MsgID != 0 {
		line("msgid", strconv.FormatInt(d.MsgID, 10))
	}
	line("channel", d.Channel)
	if d.ReceiptStatus != "" {
		line("receipt", d.ReceiptStatus+", "+localMoment(d.ReceiptAt))
	}
	line("data", d.Data)
	if err := printTable(c.stdout, rows); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(c.stdout) // the next line reports
	return printLine(c.stdout, explainRequest(explainable{d, curesOf(c.cfg)}))
}

// movedWords says which account a request was moved from, and why; "": none.
func movedWords(r requests.Record) string {
	if r.FallbackFrom == "" {
		return ""
	}
	words := r.FallbackFrom + ", " + r.FallbackReason
	if r.FallbackErrCode != 0 {
		words += fmt.Sprintf(" (%d)", r.FallbackErrCode)
	}
	return words
}

func recipientWords(d requests.Detail) string {
	var words []string
	for _, r := range []struct{ column, id string }{
		{"unionid", d.UnionID}, {"mini_appid", d.MiniAppID}, {"mini_openid", d.MiniOpenID},
		{"openid", d.OpenID},
	} {
		if r.id != "" {
			words = append(words, r.column+" "+r.id)
		}
	}
	return strings.Join(words, ", ")
}

type requestDetail struct {
	requestLine
	UnionID       *string         `json:"unionid"`
	MiniAppID     *string         `json:"mini_appid"`
	MiniOpenID    *string         `json:"mini_openid"`
	OpenID        *string         `json:"openid"`
	URL           *string         `json:"url"`
	MiniPath      *string         `json:"mini_path"`
	WishedAt      *string         `json:"wished_at"`
	UncertainAt   *string         `json:"uncertain_at"`
	UnderWay      bool            `json:"under_way"`
	ReceiptStatus *string         `json:"receipt_status"`
	ReceiptAt     *string         `json:"receipt_at"`
	Data          json.RawMessage `json:"data,omitempty"`
	Explanation   string          `json:"explanation"`
}

func (c *cli) printRequestJSON(d requests.Detail) error {
	return printJSON(c.stdout, requestDetail{
		requestLine: newRequestLine(d.Record),
		UnionID:     orNull(d.UnionID), MiniAppID: orNull(d.MiniAppID),
		MiniOpenID: orNull(d.MiniOpenID), OpenID: orNull(d.OpenID),
		URL: orNull(d.URL), MiniPath: orNull(d.MiniPath),
		WishedAt: jsonMoment(d.WishedAt), UncertainAt: jsonMoment(d.UncertainAt), UnderWay: d.UnderWay(),
		ReceiptStatus: orNull(d.ReceiptStatus), ReceiptAt: jsonMoment(d.ReceiptAt),
		Data: json.RawMessage(d.Data), Explanation: explainRequest(explainable{d, curesOf(c.cfg)}),
	}, "  ")
}
