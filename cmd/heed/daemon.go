package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/heed-sms/heed/config"
	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/admin"
	"github.com/heed-sms/heed/connector/confirm"
	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/dropin"
	"github.com/heed-sms/heed/connector/hooks"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/local"
	"github.com/heed-sms/heed/connector/people"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/crm/salesforce"
	"github.com/heed-sms/heed/sync/deliver"
	"github.com/heed-sms/heed/sync/reconcile"
	"github.com/heed-sms/heed/sync/schedule"
)

// house is everything that works on one data directory, wired but not yet listening. A daemon runs it; commands that
// find no daemon use it in passing.
type house struct {
	cfg      *config.Config
	log      *slog.Logger
	ledger   *local.Ledger
	inbox    *connector.Inbox
	gate     *connector.Gate
	boxes    *connector.Boxes
	times    *connector.Times
	answers  *connector.Answers
	lists    *connector.Lists
	queue    *connector.Queue
	relays   *dropin.Relays
	notes    *connector.Notes
	reports  *deliver.Deliverer
	people   *people.Service // of a running daemon
	page     *admin.Handler
	holds    *connector.Holds
	consents *connector.Consents
	passes   *reconcile.Runner
	metrics  *connector.Metrics
	keys     *connector.KeyRing
	limits   *connector.Limits
	accounts connector.Accounts
	crms     []connector.CRM
}

// policy is what the operator chose.
func policy(cfg *config.Config) consent.Policy {
	return consent.Policy{RequireOptIn: cfg.Consent.RequireOptIn, Shadow: cfg.Mode == config.Shadow}
}

// nothing is the owed work of shadow mode: it stays owed.
type nothing struct{}

func (nothing) Flush(context.Context) error { return nil }

// openHouse opens the ledger and wires everything to it.
func openHouse(cfg *config.Config, d drivers, log *slog.Logger) (*house, error) {
	l, err := local.Open(cfg.DataDir, local.Options{Policy: policy(cfg), Logger: log})
	if err != nil {
		return nil, err
	}
	h := &house{cfg: cfg, log: log, ledger: l, metrics: connector.NewMetrics(l, versionString())}
	words := cfg.Consent.Keywords
	replies, err := reply.New(reply.Options{OptOut: words.OptOut, OptIn: words.OptIn, Help: words.Help})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("consent.keywords: %w", err), l.Close())
	}
	var passAccounts []reconcile.Account
	for _, a := range d.accounts {
		h.accounts = append(h.accounts, connector.Account{Name: a.Name, Provider: a.provider, Replies: confirm.Owner(a.Replies)})
		passAccounts = append(passAccounts, reconcile.Account{Name: a.Name, Provider: a.provider})
	}
	var passCRMs []reconcile.CRM
	for _, c := range d.crms {
		h.crms = append(h.crms, connector.CRM{Name: c.Name, Directory: c.directory})
		passCRMs = append(passCRMs, reconcile.CRM{Name: c.Name, Directory: c.directory})
	}
	var keys []connector.Key
	for _, k := range cfg.Keys {
		key := connector.Key{Name: k.Name, SHA256: k.SHA256}
		for _, m := range k.May {
			key.May = append(key.May, connector.Right(m))
		}
		keys = append(keys, key)
	}
	now := time.Now
	h.keys = connector.NewKeyRing(l, now, keys...)
	h.limits = connector.NewLimits(cfg.Limits.PerKey, cfg.Limits.PerAccount, h.keys.Names(), h.accounts)
	h.keys.OnAdd = func(k connector.Key) { h.limits.AddKey(k.Name) }
	if err := h.keys.Load(context.Background()); err != nil {
		return nil, errors.Join(fmt.Errorf("read the API keys: %w", err), l.Close())
	}
	h.inbox = &connector.Inbox{Ledger: l, Accounts: h.accounts, Replies: replies, Metrics: h.metrics, Log: log, Now: now}
	h.gate = &connector.Gate{Ledger: l, Accounts: h.accounts, CRMs: h.crms, Policy: policy(cfg), Region: cfg.Consent.DefaultRegion, Limits: h.limits, PublicURL: cfg.Public.URL, Metrics: h.metrics, Log: log, Now: now}
	h.boxes = &connector.Boxes{Ledger: l, CRMs: h.crms, Metrics: h.metrics, Log: log, Now: now}
	h.times = &connector.Times{Ledger: l, Accounts: h.accounts, Log: log, Now: now}
	h.answers = &connector.Answers{Ledger: l, Gate: h.gate, Texts: d.texts, Metrics: h.metrics, Log: log, Now: now}
	h.lists = &connector.Lists{Ledger: l, Accounts: h.accounts, Log: log, Now: now}
	h.queue = &connector.Queue{Ledger: l, Gate: h.gate, Accounts: h.accounts, Log: log, Now: now}
	h.relays = &dropin.Relays{Ledger: l, Client: dropin.NewClient(cfg.Callbacks.AllowPrivate), Log: log, Now: now}
	h.notes = &connector.Notes{Ledger: l, CRMs: h.crms, Log: log, Now: now}
	zone := cfg.Schedule.Location()
	h.holds = &connector.Holds{Ledger: l, Deadline: func(since time.Time) time.Time { return cfg.Consent.HoldFor.After(since.In(zone)) }, Log: log, Now: now}
	h.consents = &connector.Consents{Ledger: l, Gate: h.gate, Texts: d.texts, Now: now}
	h.passes = &reconcile.Runner{
		Ledger: l, Accounts: passAccounts, CRMs: passCRMs, Inbox: h.inbox, Boxes: h.boxes, Times: h.times,
		Region: cfg.Consent.DefaultRegion, Started: now(), Log: log, Now: now, OnPass: h.metrics.PassEnded,
		Window: cfg.Campaigns.Window, Cost: cfg.Reports.MessageCost,
	}
	h.reports = &deliver.Deliverer{Ledger: l, Render: h.render, Dir: cfg.Reports.Dir, Mail: d.mail, Webhook: d.webhook, Log: log, Now: now}
	h.passes.Deliver = h.reports.Ways()
	if cfg.Mode == config.Shadow {
		h.passes.Boxes = nothing{}
		h.passes.Shadow = true
	}
	return h, nil
}

// daemon is a running heed.
type daemon struct {
	*house
	public, admin net.Listener
	// Ready is closed once the daemon serves.
	ready chan struct{}
}

// listen binds the listeners before anything else is started: an address in use is found out at once.
func listen(cfg *config.Config) (public, admin net.Listener, err error) {
	if public, err = net.Listen("tcp", cfg.Public.Listen); err != nil {
		return nil, nil, fmt.Errorf("public.listen: %w", taken(err))
	}
	if admin, err = net.Listen("tcp", cfg.Admin.Listen); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("admin.listen: %w", taken(err)), public.Close())
	}
	return public, admin, nil
}

// taken says what an address in use often means.
func taken(err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w: is another heed running on this address? heed healthcheck tells", err)
	}
	return err
}

// serve runs the daemon until ctx ends or something that it cannot live without fails. It stops in reverse order:
// first no new requests, then the workers, then the ledger.
func (d *daemon) serve(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, d.ledger.Close()) }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	salesforce.InstallTransport(nil)
	defer d.public.Close()
	defer d.admin.Close()
	if n, err := d.gate.Abandoned(ctx, time.Now()); ctx.Err() != nil {
		return nil // told to stop before it began
	} else if err != nil {
		return fmt.Errorf("settle sends of the last run: %w", err)
	} else if n > 0 {
		d.log.Warn("sends were under way when heed stopped last; their outcome is unknown until the provider tells", "messages", n)
	}
	stopWatching := d.gate.Start()
	defer stopWatching()
	if err := d.seedMetrics(ctx); err != nil {
		return err
	}

	if err := d.openPage(d.admin.Addr().String()); err != nil {
		return err
	}
	if any, err := d.people.Any(ctx); err == nil && !any {
		d.log.Info("nobody can sign in to the admin page yet: heed users invite NAME --role admin")
	}

	var ready atomic.Bool
	srv := &connector.Server{
		Inbox: d.inbox, Gate: d.gate, Consents: d.consents, Holds: d.holds, Ledger: d.ledger, Keys: d.keys, Limits: d.limits, Window: d.cfg.Campaigns.Window, Public: d.cfg.Public.URL, Metrics: d.metrics, Log: d.log, Now: time.Now,
		Ready: func() error {
			if !ready.Load() {
				return errors.New("starting or stopping")
			}
			return nil
		},
	}
	srv.Routes = d.routes(srv)
	control := d.controlHandler(ctx)
	sock, err := listenControl(d.cfg.DataDir)
	if err != nil {
		d.log.Warn("commands cannot reach this daemon", "error", err)
	}
	servers := []*http.Server{}
	var wg sync.WaitGroup
	start := func(l net.Listener, h http.Handler, unlimited bool) {
		s := connector.NewHTTPServer(h, d.log)
		if unlimited { // a pass or a backup may take long
			s.WriteTimeout, s.ReadTimeout = 0, 0
		}
		servers = append(servers, s)
		wg.Go(func() {
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				cancel(fmt.Errorf("listener %s: %w", l.Addr(), err))
			}
		})
	}
	start(d.public, srv.PublicHandler(), false)
	start(d.admin, srv.AdminHandler(func(mux *http.ServeMux) { mux.Handle("/", d.page) }), false)
	if sock != nil {
		start(sock, control, true)
	}

	workers, stopWorkers := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWorkers()
	var work sync.WaitGroup
	jobs, err := d.jobs()
	if err != nil {
		return err
	}
	run := map[string]func(context.Context){
		"times": d.times.Run, "holds": d.holds.Run, "schedule": jobs.Run, "health": func(ctx context.Context) { d.watchHealth(ctx, cancel) },
	}
	if d.cfg.Mode != config.Shadow { // shadow mode changes no record, tells no provider and texts nobody
		run["boxes"], run["lists"], run["answers"], run["notes"] = d.boxes.Run, d.lists.Run, d.answers.Run, d.notes.Run
	}
	run["queue"], run["relays"], run["reports"] = d.queue.Run, d.relays.Run, d.reports.Run
	run["abandoned"] = d.watchAbandoned
	for name, fn := range run {
		work.Go(func() { connector.Supervise(workers, d.log, name, fn) })
	}
	work.Go(func() { // what the page searches is made now, rather than when somebody waits for it
		if _, err := d.ledger.Find(workers, ledger.Query{Limit: 1}); err != nil && workers.Err() == nil {
			d.log.Error("the list of numbers could not be made", "error", err)
		}
	})
	ready.Store(true)
	d.log.Info("heed is serving", "public", d.public.Addr().String(), "url", d.cfg.Public.URL, "admin", d.admin.Addr().String(), "data_dir", d.cfg.DataDir, "version", versionString())
	close(d.ready)

	<-ctx.Done()
	ready.Store(false)
	cause := context.Cause(ctx)
	d.log.Info("heed is stopping", "why", cause)
	// Whoever waits for a provider's answer is told "unknown" rather than nothing.
	abort := time.AfterFunc(5*time.Second, d.gate.Abort)
	defer abort.Stop()
	grace, stopGrace := context.WithTimeout(context.Background(), 10*time.Second)
	defer stopGrace()
	for _, s := range servers {
		if err := s.Shutdown(grace); err != nil {
			_ = s.Close()
		}
	}
	wg.Wait()
	stopWorkers()
	work.Wait()
	if errors.Is(cause, context.Canceled) {
		return nil
	}
	return cause
}

// routes are the ways in that speak another system's language: Twilio's API and Salesforce's outbound messages.
func (d *daemon) routes(srv *connector.Server) func(mux *http.ServeMux) {
	twilio := &dropin.Handler{Gate: d.gate, Ledger: d.ledger, Key: srv.Keys.Find, Limits: d.limits, Metrics: d.metrics, Log: d.log, AllowPrivate: d.cfg.Callbacks.AllowPrivate}
	for _, a := range d.accounts {
		twilio.Accounts = append(twilio.Accounts, a.Name)
	}
	salesforce := &hooks.Handler{Gate: d.gate, Ledger: d.ledger, Log: d.log, Now: time.Now}
	for _, o := range d.cfg.OutboundMessages {
		salesforce.Hooks = append(salesforce.Hooks, hooks.Hook{Secret: o.Hook.Reveal(), CRM: o.CRM, OrgID: string(o.OrgID), To: o.To, Body: o.Body, Template: o.Template,
			OptOut: o.OptOut, Account: o.Account, From: o.From, Name: o.Campaign, Campaign: o.CampaignField, Status: o.Status})
	}
	return func(mux *http.ServeMux) {
		twilio.Register(mux)
		mux.Handle("POST /salesforce/outbound-messages/{hook}", salesforce)
	}
}

// seedMetrics tells the metrics what earlier runs did.
func (d *daemon) seedMetrics(ctx context.Context) error {
	found := map[string]bool{}
	for p, err := range d.ledger.Reports(ctx) {
		if err != nil {
			return fmt.Errorf("read the reports of earlier passes: %w", err)
		}
		if p.Error == "" && !p.FinishedAt.IsZero() && !found[p.Kind] {
			found[p.Kind] = true
			d.metrics.PassedBefore(p.Kind, p.FinishedAt)
		}
		if found[reconcile.Nightly] {
			break
		}
	}
	return nil
}

// watchAbandoned gives up on sends whose outcome could not be recorded: ten minutes after, nobody is sending them.
func (d *daemon) watchAbandoned(ctx context.Context) {
	t := time.NewTicker(time.Minute)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if _, err := d.gate.Abandoned(ctx, time.Now().Add(-20*time.Minute)); err != nil && ctx.Err() == nil {
			d.log.Error("sends without an outcome could not be looked at", "error", err)
		}
	}
}

// watchHealth ends the daemon when the ledger has failed: only a restart, which verifies, can be trusted again.
func (d *daemon) watchHealth(ctx context.Context, end context.CancelCauseFunc) {
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	for {
		if err := d.ledger.Health(); err != nil {
			end(err)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// jobs are the passes that run by the clock.
func (d *daemon) jobs() (*schedule.Scheduler, error) {
	pass := func(kind, spec string) schedule.Job {
		return schedule.Job{Name: kind, Spec: spec, Run: func(ctx context.Context) error {
			_, err := d.passes.Run(ctx, reconcile.Options{Kind: kind})
			if errors.Is(err, reconcile.ErrRunning) {
				return nil
			}
			return err
		}}
	}
	return schedule.New(schedule.Options{Zone: d.cfg.Schedule.Location(), Cursors: d.ledger, Log: d.log},
		pass(reconcile.Incremental, d.cfg.Schedule.Incremental), pass(reconcile.Nightly, d.cfg.Schedule.Nightly))
}

func serveCommand(std stdio, o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon",
		Long: `Run the daemon until it is told to stop (SIGINT or SIGTERM; it then finishes what it has accepted).

It exits with 1 if it cannot start, or if its ledger fails while it runs: a restart verifies the ledger, so let the
service manager restart it.`,
		Example: "  heed serve -c /etc/heed/heed.yaml",
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := o.logger(std)
			if err != nil {
				return err
			}
			cfg, drv, problems := loadConfig(o.config, log)
			if len(problems) > 0 {
				fmt.Fprintln(std.Err, problems.Error())
			}
			if problems.Err() != nil {
				return errFailed
			}
			return serve(c.Context(), cfg, drv, log, nil)
		},
	}
}

// serve runs a daemon on a loaded configuration. started, if not nil, is called once it serves.
func serve(ctx context.Context, cfg *config.Config, drv drivers, log *slog.Logger, started func(*daemon)) error {
	public, admin, err := listen(cfg)
	if err != nil {
		return err
	}
	h, err := openHouse(cfg, drv, log)
	if err != nil {
		return errors.Join(err, public.Close(), admin.Close())
	}
	d := &daemon{house: h, public: public, admin: admin, ready: make(chan struct{})}
	if started != nil {
		go func() {
			select {
			case <-d.ready:
				started(d)
			case <-ctx.Done():
			}
		}()
	}
	return d.serve(ctx)
}

func controlPath(dataDir string) string { return filepath.Join(dataDir, "heed.sock") }

// listenControl binds the socket through which commands talk to the daemon. Whoever may open it may do everything, so
// only the owner may.
func listenControl(dataDir string) (net.Listener, error) {
	path := controlPath(dataDir)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	addr, release, err := socketAddress(path)
	if err != nil {
		return nil, err
	}
	defer release()
	l, err := net.Listen("unix", addr)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // addr is not its name any more then
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// maxSocketPath is how long a socket's path may be: 108 bytes on Linux, 104 on the BSDs, with the closing zero.
const maxSocketPath = 100

// socketAddress returns an address for a socket at a path that may be longer than the kernel takes for one: on Linux the
// directory is then named by a descriptor, which release closes.
func socketAddress(path string) (addr string, release func(), err error) {
	if len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	if runtime.GOOS != "linux" {
		return "", nil, fmt.Errorf("the path of data_dir is too long for a socket (%d bytes); shorten it", len(path))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)), func() { _ = dir.Close() }, nil
}

func dialControl(ctx context.Context, dataDir string) (net.Conn, error) {
	addr, release, err := socketAddress(controlPath(dataDir))
	if err != nil {
		return nil, err
	}
	defer release()
	return (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", addr)
}
