package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// flags are the command line, see define for their meaning.
type flags struct {
	listen       string
	accounts     int
	followers    int
	miniPrograms int
	miniUsers    int
	notFollowing float64
	refuse       float64
	latency      time.Duration
	seed         uint64
	unbound      bool
	limits       bool
	noMsgID      bool
	granted      int
	keep         string
	repeatWindow time.Duration
	callback     wechatsim.Callback
	faults       []wechatsim.Fault
}

// parseFlags returns flag.ErrHelp once it has printed the help; the caller prints errors.
func parseFlags(args []string, stdout io.Writer) (*flags, error) {
	f := &flags{}
	set := flag.NewFlagSet("wechatsim", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	f.define(set)
	err := set.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(stdout, "wechatsim simulates WeChat's server APIs on a loopback address.")
		set.SetOutput(stdout)
		set.PrintDefaults()
	}
	if err != nil {
		return nil, err
	}
	if set.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q: everything is a flag", set.Arg(0))
	}
	return f, f.validate()
}

func (f *flags) define(set *flag.FlagSet) {
	set.StringVar(&f.listen, "listen", "127.0.0.1:8082",
		"`address` to serve on; port 0: any free one, which is printed")
	set.IntVar(&f.accounts, "accounts", 1,
		"official accounts: "+wechatsim.StandardAppID+" and following numbers")
	set.IntVar(&f.followers, "followers", 50000,
		"followers of each official account; they are the same persons")
	set.IntVar(&f.miniPrograms, "mini-programs", 1,
		"mini programs: "+wechatsim.StandardMiniAppID+" and following numbers")
	set.IntVar(&f.miniUsers, "mini-users", 20000, "users of each mini program")
	set.Float64Var(&f.notFollowing, "not-following", 1.0/3,
		"`share` of the mini-program users who do not follow the first account")
	set.Float64Var(&f.refuse, "refuse", 0, "`share` of the followers who refuse messages (43101)")
	set.DurationVar(&f.latency, "latency", 0, "added to every answer")
	set.Uint64Var(&f.seed, "seed", 1,
		"everything derived follows from it: openids, unionids, chance")
	set.BoolVar(&f.unbound, "unbound", false,
		"no account is bound to an Open Platform account: no unionids")
	set.BoolVar(&f.limits, "limits", true, "enforce WeChat's daily limits")
	set.BoolVar(&f.noMsgID, "no-msgid", false, "subscribe/send answers without a msgid, as it may")
	set.IntVar(&f.granted, "granted", 0,
		"messages of each template that every mini-program user allows from the start")
	set.StringVar(&f.keep, "keep", string(wechatsim.KeepAll),
		"what is kept of delivered messages: all, heads or counts")
	set.DurationVar(&f.repeatWindow, "repeat-window", 10*time.Minute,
		"how long the same client_msg_id to the same person delivers nothing again")
	set.StringVar(&f.callback.URL, "callback-url", "",
		"where events are pushed to, {appid} stands for the account's")
	set.StringVar(&f.callback.Token, "callback-token", "", "token that signs the pushes")
	set.StringVar(&f.callback.AESKey, "callback-aes-key", "",
		"EncodingAESKey; pushes are encrypted if it is given")
	set.DurationVar(&f.callback.Delay, "callback-delay", 0, "from a send to its receipt")
	set.Float64Var(&f.callback.Duplicate, "callback-duplicate", 0,
		"`share` of the pushes that come twice")
	set.Float64Var(&f.callback.Lost, "callback-lost", 0,
		"`share` of the receipts and subscribe events that never come")
	set.Float64Var(&f.callback.UserBlock, "callback-user-block", 0,
		"`share` of the receipts that say failed:user block")
	set.Func("callback-format", "`form` of the pushes, by default XML; or JSON with its lists as "+
		"array, object, list, list_array or mixed", f.setFormat)
	set.BoolVar(&f.callback.Subscribe.SentSuccess, "callback-sent-success", false,
		"subscribe_msg_sent_event comes for successes, too")
	set.Float64Var(&f.callback.Subscribe.SentFailed, "callback-sent-failed", 0,
		"`share` of the accepted subscribe messages that fail then")
	set.BoolVar(&f.callback.Subscribe.KeptSilent, "callback-kept-silent", false,
		"an accept that the person keeps comes without an event")
	set.Func("fault", "JSON of a wechatsim.Fault, repeatable, for example "+
		`{"kind":"reset","path":"/cgi-bin/message/template/send","after":true,"probability":0.01}`,
		f.addFault)
}

func (f *flags) setFormat(text string) error {
	f.callback.Format = wechatsim.Format(text)
	return f.callback.Format.Validate()
}

func (f *flags) addFault(text string) error {
	var fault wechatsim.Fault
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&fault); err != nil {
		return fmt.Errorf("decoding the fault: %w", err)
	}
	if err := fault.Validate(); err != nil {
		return err
	}
	f.faults = append(f.faults, fault)
	return nil
}

func (f *flags) validate() error {
	for name, share := range map[string]float64{
		"not-following": f.notFollowing, "refuse": f.refuse,
		"callback-duplicate": f.callback.Duplicate,
		"callback-lost":      f.callback.Lost, "callback-user-block": f.callback.UserBlock,
		"callback-sent-failed": f.callback.Subscribe.SentFailed,
	} {
		if share < 0 || share > 1 {
			return fmt.Errorf("-%s: %v is no share, which lies between 0 and 1", name, share)
		}
	}
	for name, count := range map[string]int{
		"accounts": f.accounts, "followers": f.followers, "mini-programs": f.miniPrograms,
		"mini-users": f.miniUsers, "granted": f.granted,
	} {
		if count < 0 {
			return fmt.Errorf("-%s: %d is negative", name, count)
		}
	}
	if f.repeatWindow <= 0 {
		return fmt.Errorf("-repeat-window: %s is not above zero", f.repeatWindow)
	}
	if !slices.Contains([]wechatsim.Keep{wechatsim.KeepAll, wechatsim.KeepHeads,
		wechatsim.KeepCounts}, wechatsim.Keep(f.keep)) {
		return fmt.Errorf("-keep: %q is none of all, heads, counts", f.keep)
	}
	if f.callback.AESKey != "" && len(f.callback.AESKey) != 43 {
		return errors.New("-callback-aes-key: an EncodingAESKey has 43 characters")
	}
	return nil
}

// options builds the platform. The accounts' appids are consecutive.
func (f *flags) options() wechatsim.Options {
	options := wechatsim.Options{
		Seed: f.seed, Latency: f.latency, Keep: wechatsim.Keep(f.keep), Faults: f.faults,
		RepeatWindow: f.repeatWindow,
	}
	for i := range f.accounts {
		account := wechatsim.Account{
			AppID:     numbered(wechatsim.StandardAppID, i),
			Secret:    numbered(wechatsim.StandardSecret, i),
			Followers: f.followers, Unbound: f.unbound, DailyLimits: f.dailyLimits(),
			Quirks: wechatsim.Quirks{RefuseShare: f.refuse},
		}
		account.Callback = f.callbackOf(account.AppID)
		options.Accounts = append(options.Accounts, account)
	}
	for i := range f.miniPrograms {
		appid := numbered(wechatsim.StandardMiniAppID, i)
		options.Minis = append(options.Minis, wechatsim.Mini{
			AppID: appid, Secret: numbered(wechatsim.StandardMiniSecret, i),
			Users: f.miniUsers, NotFollowing: f.notFollowing, Unbound: f.unbound,
			DailyLimits: f.dailyLimits(), NoMsgID: f.noMsgID, Granted: f.granted, Callback: f.callbackOf(appid),
		})
	}
	return options
}

// callbackOf is where an account's events go; nil: nowhere.
func (f *flags) callbackOf(appid string) *wechatsim.Callback {
	if f.callback.URL == "" {
		return nil
	}
	callback := f.callback
	callback.URL = strings.ReplaceAll(callback.URL, "{appid}", appid)
	callback.Secure = callback.AESKey != ""
	return &callback
}

func (f *flags) dailyLimits() map[string]int64 {
	if f.limits {
		return nil
	}
	return wechatsim.NoDailyLimits()
}

// numbered counts an id that ends in …0001 on.
func numbered(id string, i int) string {
	return fmt.Sprintf("%s%04d", id[:len(id)-4], i+1)
}
