package sender

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
	"github.com/unionbridge/unionbridge/sender/lanes"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// stepper is an account that does not run: its tests make one attempt after the other and look at
// what each leaves.
type stepper struct {
	*fixture
	leases   *database.Leases
	lease    *database.Lease
	svc      *Service
	account  *account
	claims   *claimer
	registry *prometheus.Registry
	claimed  func() // called between a claim and its POSTs; nil: nothing happens
}

func newStepper(t *testing.T, f *fixture) *stepper {
	t.Helper()
	leases := database.NewLeases(f.db, database.LeaseConfig{Holder: "stepper", TTL: time.Hour, Now: f.leaseClock})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = leases.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	s := &stepper{fixture: f, leases: leases}
	s.restart(t)
	lease, err := leases.TryAcquire(t.Context(), queue.LeaseName(appid))
	if err != nil || lease == nil {
		t.Fatalf("the lease: %v, %v", lease, err)
	}
	s.lease = lease
	return s
}

// restart makes a new instance, which knows only what the database does.
func (s *stepper) restart(t *testing.T) {
	t.Helper()
	s.registry = prometheus.NewRegistry()
	s.svc = s.service(t, s.leases, s.registry)
	var err error
	if s.svc.installation, err = s.svc.queue.Installation(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.account = s.svc.accounts[0]
	s.claims = &claimer{account: s.account, size: initialClaim,
		deferred: map[int64]time.Time{}, fair: lanes.Divider{Named: s.account.configured}}
}

func (s *stepper) receipt(ctx context.Context, appid string, r queue.Receipt) error {
	return s.svc.Receipt(ctx, appid, r)
}

// maintain is one round of maintenance.
func (s *stepper) maintain(t *testing.T) {
	t.Helper()
	s.account.owner.Store(true)
	s.lookAgain(t)
	if err := newMaintenance(s.svc).once(t.Context()); err != nil {
		t.Error(err)
	}
}

// metric returns the value of the metric that carries these label values, in any order.
func (s *stepper) metric(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var values []string
			for _, pair := range m.GetLabel() {
				values = append(values, pair.GetValue())
			}
			missing := slices.ContainsFunc(labels, func(l string) bool { return !slices.Contains(values, l) })
			if family.GetName() == name && !missing {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}

// lookAgain reads which lanes have due rows, however fresh the list is.
func (s *stepper) lookAgain(t *testing.T) {
	t.Helper()
	if _, err := s.svc.lanes.Pending(t.Context(), -1); err != nil {
		t.Fatal(err)
	}
}

// attempt claims what is due and makes one attempt at each row.
func (s *stepper) attempt(t *testing.T) {
	t.Helper()
	s.lookAgain(t)
	d, results := newDispatch(2*maxClaim), make(chan queue.Result, 100)
	s.claims.size, s.claims.dispatch, s.claims.results = initialClaim, d, results
	if _, err := s.claims.claim(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.close()
	if s.claimed != nil {
		s.claimed()
	}
	for {
		j, ok := d.next()
		if !ok {
			break
		}
		results <- s.account.deliver(t.Context(), s.lease, j)
	}
	close(results)
	s.account.settler.Run(t.Context(), results, nil)
}

// claimableNow is how many rows a claim would read.
func (s *stepper) claimableNow(t *testing.T) (n int) {
	t.Helper()
	lanes, err := s.svc.queue.Watch(nil, queue.Pending).Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	shares, _ := s.claims.shares(lanes, 10)
	for _, l := range shares {
		n += l.Quantum
	}
	return n
}

// policyCase is what an errcode of template/send comes to, as the API reference classes it.
type policyCase struct {
	class    string
	status   queue.Status
	attempts int
	scope    string        // of account_state, without a template's id; "": nothing
	delay    time.Duration // until the row, or the account, or the template is tried again; about
	codes    []int
}

// policyTable is transcribed from the platform's table of codes, not from the code under test.
var policyTable = []policyCase{
	{"transient", queue.Pending, 1, "", 5 * time.Second, []int{
		20001, 43108, 45061, 45066, 45102, 45169, 45171, 61450, 268487001, 268487002}},
	{"uncertain", queue.Pending, 1, "", 5 * time.Second, []int{-1, 40241, 44007, 45065}},
	{"spurious template", queue.Pending, 1, "", 2 * time.Minute, []int{40037}},
	{"token", queue.Sent, 1, "", 0, []int{40001, 40014, 41001, 42001, 42007, 48012}},
	{"day's quota", queue.Pending, 0, "send", -1, []int{43100, 45009, 45028, 45040, 45047, 45104, 48006}},
	{"minute's quota", queue.Pending, 0, "send", -2, []int{45011}},
	{"this person later", queue.Pending, 1, "", 30 * time.Minute, []int{43117}},
	{"this person is checked", queue.Waiting, 1, "", time.Hour, []int{40003, 43004, 50005, -41000}},
	{"this person", queue.Failed, 1, "", 0, []int{
		40226, 43005, 43006, 43019, 43101, 45015, 46004, 48002, 49003, 70000}},
	{"this template", queue.Pending, 0, "template:", 5 * time.Minute, []int{43102, 43116, 45026, 45027, 48011}},
	{"a person must act", queue.Pending, 0, "send", 5 * time.Minute, []int{
		40013, 40090, 40125, 40164, 40201, 40222, 40243, 41031, 41032, 41033, 41034, 41035, 43103, 43104, 43105, 43106,
		43107, 45035, 45063, 45087, 45094, 45103, 45109, 46101, 48001, 48003, 48004, 48008, 48009, 50001, 50002, 50004,
		50007, 61003, 61004, 61007, 61016, 61017, 63178, 63183, 76022, 89501, 89502, 89503, 89504, 89505, 89506, 89507,
		200011, 200012, 200013}},
	{"this request", queue.Failed, 1, "", 0, []int{
		20002, 40002, 40007, 40008, 40029, 40030, 40031, 40032, 40033, 40034, 40035, 40036, 40038, 40039, 40048, 40062,
		40066, 40068, 40092, 40097, 40102, 40103, 40129, 40132, 40163, 40165, 40166, 40202, 40203, 40221, 40246, 40247,
		40249, 41002, 41003, 41004, 41008, 41009, 41018, 41021, 41028, 41029, 41030, 42002, 42003, 43001, 43002, 43003,
		44002, 44003, 44004, 44005, 45001, 45002, 45003, 45004, 45005, 45006, 45007, 45008, 45010, 45012, 45013, 45014,
		45016, 45017, 45018, 45019, 45051, 45056, 45057, 45058, 45059, 45067, 45072, 45080, 45081, 45082, 45157, 45158,
		45159, 45168, 46001, 46002, 46003, 46009, 47001, 47002, 47003, 63179, 63182, 76001, 76002, 76003, 76004, 76021,
		87009, 200001, 200002, 200014, 200016, 200017, 200018, 200019, 200020, 200021, 200022, 200100, 9001001,
		// a code that nobody has seen is not repeated for ever
		999999}},
}

// TestPolicyTable walks every errcode that a send can meet through the simulator: what the row
// says, what the account's state and the metric say, and what happens next.
func TestPolicyTable(t *testing.T) {
	f := newFixture(t)
	s := newStepper(t, f)
	for _, c := range policyTable {
		for _, code := range c.codes {
			t.Run(fmt.Sprintf("%s/%d", c.class, code), func(t *testing.T) { s.walk(t, c, code) })
		}
	}
}

func (s *stepper) walk(t *testing.T, c policyCase, code int) {
	client := s.client() // each case renews its own token
	s.channel.API = client
	s.restart(t)
	for _, table := range []string{"send_request", "account_state", "follower_recheck"} {
		s.exec(t, `DELETE FROM `+table)
	}
	if _, err := client.Quota(t.Context(), wechat.EndpointSendTemplate); err != nil {
		t.Fatal(err) // there is a token now, so that the fault meets the send
	}
	id := s.insert(t, columns{"unionid": s.unionid(1), "template": s.templateID})
	other := s.insert(t, columns{"unionid": s.unionid(2), "template": s.otherTemplate, "data": `{"thing1":"x"}`, "due_at": "2037-01-01"})
	s.sim.ClearFaults()
	s.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultErrcode, Code: code, Path: wechat.EndpointSendTemplate, Next: 1})
	s.attempt(t)

	r := s.row(t, id)
	if r.Status != string(c.status) || r.Attempts != c.attempts {
		t.Fatalf("the row is %s (%s) after %d attempts, want %s after %d", r.Status, r.reason(), r.Attempts, c.status, c.attempts)
	}
	if (r.reason() == "") != (c.status == queue.Sent) || c.status != queue.Sent && (r.ErrCode == nil || *r.ErrCode != code) {
		t.Errorf("the row says reason %q, errcode %v", r.reason(), r.ErrCode)
	}
	if uncertain := s.count(t, `SELECT COUNT(*) FROM send_request WHERE id = ? AND uncertain_at IS NOT NULL`, id); (uncertain == 1) != (c.class == "uncertain") {
		t.Errorf("uncertain_at is set in %d rows", uncertain)
	}
	if asked := s.count(t, `SELECT COUNT(*) FROM follower_recheck`); (asked == 1) != (c.status == queue.Waiting) {
		t.Errorf("%d people are to be checked", asked)
	}
	s.checkState(t, c)
	if c.attempts == 1 {
		if s.metric(t, "unionbridge_send_outcomes_total", r.Status, r.reason()) < 1 {
			t.Errorf("the metric does not count %s %q", r.Status, r.reason())
		}
	}
	// What is next: everything of the account, the other templates, or all but this row.
	s.exec(t, `UPDATE send_request SET due_at = CURRENT_TIMESTAMP(3) WHERE id = ?`, other)
	want := 10
	if c.scope == "send" {
		want = 0
	}
	if n := s.claimableNow(t); n != want {
		t.Errorf("%d rows may be claimed now, want %d", n, want)
	}
	s.checkNext(t, c, id)
}

// checkState compares account_state and its metrics.
func (s *stepper) checkState(t *testing.T, c policyCase) {
	t.Helper()
	want := ""
	switch c.scope {
	case "send":
		want = "send"
	case "template:":
		want = "template:" + s.templateID
	}
	if n := s.count(t, `SELECT COUNT(*) FROM account_state`); (n == 1) != (want != "") {
		t.Errorf("account_state has %d rows", n)
	}
	if n := s.count(t, `SELECT COUNT(*) FROM account_state WHERE appid = ? AND scope = ?`, appid, want); want != "" && n != 1 {
		t.Errorf("account_state does not have scope %s", want)
	}
	paused := s.metric(t, "unionbridge_send_paused")
	if c.scope == "send" && paused != 1 {
		t.Errorf("the metric does not show the pause")
	}
	held := s.metric(t, "unionbridge_send_templates_held")
	if c.scope == "template:" && held != 1 {
		t.Errorf("the metric does not show the template")
	}
}

// checkNext compares when the row, the account or the template is tried again.
func (s *stepper) checkNext(t *testing.T, c policyCase, id int64) {
	t.Helper()
	if c.status != queue.Pending && c.status != queue.Waiting {
		return
	}
	now := time.Now()
	var seconds float64
	query := `SELECT TIMESTAMPDIFF(MICROSECOND, CURRENT_TIMESTAMP(3), due_at) / 1000000 FROM send_request WHERE id = ?`
	args := []any{id}
	if c.scope != "" {
		query = `SELECT TIMESTAMPDIFF(MICROSECOND, CURRENT_TIMESTAMP(3), paused_until) / 1000000 FROM account_state WHERE scope <> ?`
		args = []any{""}
	}
	if err := s.db.GetContext(t.Context(), &seconds, query, args...); err != nil {
		t.Fatal(err)
	}
	got, want := time.Duration(seconds*float64(time.Second)), c.delay
	switch c.delay {
	case -1:
		if want = wechat.QuotaReset(now, 0).Sub(now); want > 23*time.Hour {
			want = 10 * time.Minute // it may be the day before's answer
		}
	case -2:
		want = now.Truncate(time.Minute).Add(time.Minute + time.Second).Sub(now)
	}
	slack := max(want/9, 2*time.Second)
	if got < want-slack || got > want+slack {
		t.Errorf("it is tried again in %s, want about %s", got, want)
	}
}
