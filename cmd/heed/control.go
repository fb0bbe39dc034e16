package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/heed-sms/heed/config"
	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/export"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/local"
	"github.com/heed-sms/heed/crm/salesforce"
	"github.com/heed-sms/heed/sms/phone"
	"github.com/heed-sms/heed/sync/reconcile"
)

// Commands talk to the running daemon over a unix socket in the data directory. Where none runs they open the house
// themselves and talk to the same handler over a pipe, so that there is one way to do each thing.

// step is one line of a streamed answer: progress, or the end.
type step struct {
	Progress *reconcile.Progress `json:"progress,omitempty"`
	Result   json.RawMessage     `json:"result,omitempty"`
	Error    string              `json:"error,omitempty"`
}

// reconcileRequest asks for a pass.
type reconcileRequest struct {
	Full   bool   `json:"full"`
	DryRun bool   `json:"dry_run"`
	Format string `json:"format"` // text or json
	NoPII  bool   `json:"no_pii,omitempty"`
}

// renderedReport is a report as a command prints it.
type renderedReport struct {
	ID     string `json:"id"`
	Error  string `json:"error,omitempty"` // why the pass is partial
	Report string `json:"report"`
}

// render writes a pass as text, json, csv or html.
func (h *house) render(w io.Writer, p ledger.Pass, corrections iter.Seq2[ledger.Correction, error], format string) error {
	o := reconcile.TextOptions{Zone: h.cfg.Schedule.Location()}
	switch format {
	case "json":
		return reconcile.JSON(w, p, corrections)
	case "csv":
		return reconcile.CSV(w, p, corrections)
	case "page":
		o.Back = "/reports"
		fallthrough
	case "html":
		return reconcile.HTML(w, p, corrections, o)
	}
	return reconcile.Text(w, p, corrections, o)
}

// controlHandler serves the commands. ctx is the daemon's: what is long ends with it.
func (h *house) controlHandler(ctx context.Context) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /reconcile", func(w http.ResponseWriter, r *http.Request) {
		var ask reconcileRequest
		if err := json.NewDecoder(io.LimitReader(r.Body, 1<<12)).Decode(&ask); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		stream(ctx, w, r, func(ctx context.Context, progress func(reconcile.Progress)) (any, error) {
			res, err := h.passes.Run(ctx, reconcile.Options{Kind: reconcile.Manual, Full: ask.Full, DryRun: ask.DryRun, Progress: progress})
			if err != nil {
				return nil, err
			}
			all := res.All()
			if res.Recorded {
				all = h.ledger.Corrections(ctx, res.Pass.ID)
			}
			if ask.NoPII {
				res.Pass, all = maskStanding(res.Pass), maskCorrections(all)
			}
			var b strings.Builder
			err = h.render(&b, res.Pass, all, ask.Format)
			return renderedReport{res.Pass.ID, res.Pass.Error, b.String()}, err
		})
	})
	mux.HandleFunc("POST /verify", func(w http.ResponseWriter, r *http.Request) {
		stream(ctx, w, r, func(ctx context.Context, progress func(reconcile.Progress)) (any, error) {
			rep, err := h.ledger.Verify(ctx, func(done, total int64) {
				progress(reconcile.Progress{Stage: "journal", Done: int(done), Total: int(total)})
			})
			return newVerifyReport(rep, err), nil
		})
	})
	mux.HandleFunc("GET /backup", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-tar")
		if s, err := h.ledger.Stats(r.Context()); err == nil {
			w.Header().Set(backupSize, fmt.Sprint(s.Bytes))
		}
		if err := h.ledger.Backup(r.Context(), w); err != nil {
			h.log.Error("backup failed", "error", err)
			panic(http.ErrAbortHandler) // the client must see a broken stream, not a short file
		}
	})
	mux.HandleFunc("GET /reports", func(w http.ResponseWriter, r *http.Request) {
		answer(w, func() (any, error) {
			out := []ledger.Pass{}
			for p, err := range h.ledger.Reports(r.Context()) {
				if err != nil {
					return nil, err
				}
				if out = append(out, brief(p)); len(out) == 1000 {
					break
				}
			}
			return out, nil
		})
	})
	mux.HandleFunc("GET /reports/{id}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, func() (any, error) {
			p, err := h.report(r.Context(), r.PathValue("id"))
			if err != nil {
				return nil, err
			}
			all := h.ledger.Corrections(r.Context(), p.ID)
			if r.URL.Query().Has("no_pii") {
				p, all = maskStanding(p), maskCorrections(all)
			}
			var b strings.Builder
			err = h.render(&b, p, all, r.URL.Query().Get("format"))
			return renderedReport{p.ID, p.Error, b.String()}, err
		})
	})
	mux.HandleFunc("GET /holds", func(w http.ResponseWriter, r *http.Request) {
		answer(w, func() (any, error) { return h.holds.List(r.Context()) })
	})
	mux.HandleFunc("POST /holds/{number}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, func() (any, error) {
			return h.change(r, func(ctx context.Context, n phone.Number, c consentRequest) error {
				return h.consents.Resolve(ctx, n, c.OptOut, c.Seq, c.Who, c.Why)
			})
		})
	})
	mux.HandleFunc("POST /consents/{number}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, func() (any, error) {
			return h.change(r, func(ctx context.Context, n phone.Number, c consentRequest) error {
				if !c.OptOut {
					return h.consents.Undo(ctx, n, consent.Admin, c.Who, c.Why)
				}
				return h.consents.Set(ctx, n, consent.OptedOut, consent.Admin, c.Who, c.Why)
			})
		})
	})
	mux.HandleFunc("POST /decisions", func(w http.ResponseWriter, r *http.Request) {
		answer(w, func() (any, error) {
			var numbers []string
			if err := json.NewDecoder(io.LimitReader(r.Body, maxAsk)).Decode(&numbers); err != nil {
				return nil, err
			}
			if err := h.ledger.Health(); err != nil {
				return nil, err
			}
			out := make([]gateAnswer, len(numbers))
			for i, n := range numbers {
				d := h.gate.Decide(n)
				out[i] = gateAnswer{d.Verdict, d.Reason}
			}
			return out, nil
		})
	})
	h.optOutRoutes(mux, ctx)
	h.keyRoutes(mux)
	h.userRoutes(mux)
	h.explainRoutes(mux)
	h.evidenceRoutes(mux)
	mux.HandleFunc("GET /history/{number}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, func() (any, error) { return h.history(r.Context(), r.PathValue("number")) })
	})
	return mux
}

// consentRequest is a change that a person makes at the command line.
type consentRequest struct {
	OptOut bool   `json:"opt_out"`
	Seq    uint64 `json:"seq,omitempty"`
	Who    string `json:"who"`
	Why    string `json:"why"`
}

func (h *house) change(r *http.Request, fn func(context.Context, phone.Number, consentRequest) error) (numberHistory, error) {
	var c consentRequest
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<14)).Decode(&c); err != nil {
		return numberHistory{}, err
	}
	n, err := phone.Parse(r.PathValue("number"), h.cfg.Consent.DefaultRegion)
	if err != nil {
		return numberHistory{}, err
	}
	if err := fn(r.Context(), n, c); err != nil {
		return numberHistory{}, err
	}
	if h.cfg.Mode != config.Shadow {
		if err := h.boxes.Flush(r.Context()); err != nil { // where no daemon runs, nobody else would
			h.log.Warn("the boxes are not set yet", "error", err)
		}
	}
	return h.history(r.Context(), n.String())
}

// report returns a pass by its name, or by the beginning of it if only one has it; "latest" is the newest one that is kept.
func (h *house) report(ctx context.Context, id string) (ledger.Pass, error) {
	if id != "latest" {
		if p, err := h.ledger.Report(ctx, id); !errors.Is(err, ledger.ErrNotFound) {
			return p, err
		}
	}
	var newest, fits []ledger.Pass
	for p, err := range h.ledger.Reports(ctx) {
		switch {
		case err != nil:
			return p, err
		case id == "latest":
			return p, nil
		case strings.HasPrefix(p.ID, id):
			fits = append(fits, p)
		case len(newest) < 3:
			newest = append(newest, p)
		}
	}
	names := func(passes []ledger.Pass) string {
		var b []string
		for _, p := range passes[:min(5, len(passes))] {
			b = append(b, p.ID)
		}
		return strings.Join(b, ", ")
	}
	switch {
	case id == "latest":
		return ledger.Pass{}, fmt.Errorf("report: %w: no pass has been recorded yet; heed reconcile runs one", ledger.ErrNotFound)
	case len(fits) == 1:
		return fits[0], nil
	case len(fits) > 1:
		return ledger.Pass{}, fmt.Errorf("report %.40q: %w: %d reports begin like this, among them %s; write more of the name", id, ledger.ErrNotFound, len(fits), names(fits))
	case len(newest) == 0:
		return ledger.Pass{}, fmt.Errorf("report %.40q: %w: there are no reports yet", id, ledger.ErrNotFound)
	}
	return ledger.Pass{}, fmt.Errorf("report %.40q: %w; the newest are %s, and heed reports list shows all", id, ledger.ErrNotFound, names(newest))
}

// numberHistory is everything known about a number.
type numberHistory struct {
	Number   phone.Number   `json:"number"`
	State    string         `json:"state"`
	Decision string         `json:"decision"`
	Reason   string         `json:"reason"`
	Records  []recordState  `json:"records"`
	Events   []historyEvent `json:"events"`
}

type recordState struct {
	CRM      string `json:"crm"`
	Object   string `json:"object"`
	ID       string `json:"id"`
	OptedOut bool   `json:"opted_out"`
}

type historyEvent struct {
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"` // of the journal record
	ledger.Event
}

func (h *house) history(ctx context.Context, input string) (numberHistory, error) {
	n, err := phone.Parse(input, h.cfg.Consent.DefaultRegion)
	if err != nil {
		return numberHistory{}, err
	}
	d := h.ledger.Decide(n)
	out := numberHistory{Number: n, State: h.ledger.State(n).String(), Decision: string(d.Verdict), Reason: string(d.Reason),
		Records: []recordState{}, Events: []historyEvent{}}
	for _, c := range h.crms {
		records, err := h.ledger.Mirror(c.Name).ByNumber(ctx, n)
		if err != nil {
			return out, err
		}
		for _, r := range records {
			out.Records = append(out.Records, recordState{c.Name, r.Object, r.ID, r.OptedOut})
		}
	}
	for e, err := range h.ledger.History(ctx, n) {
		if err != nil {
			return out, err
		}
		out.Events = append(out.Events, historyEvent{e.Seq, fmt.Sprintf("%x", e.Hash), e})
	}
	return out, nil
}

func answer(w http.ResponseWriter, fn func() (any, error)) {
	v, err := fn()
	status := http.StatusOK
	if err != nil {
		status = http.StatusInternalServerError
		var filter *export.FilterError
		switch {
		case errors.Is(err, ledger.ErrNotFound):
			status = http.StatusNotFound
		case errors.As(err, &filter), errors.Is(err, export.ErrColumn), errors.Is(err, errNoRole):
			status = http.StatusUnprocessableEntity
		}
		v = step{Error: err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// stream runs something long and writes one JSON line a step. It ends with the daemon or with the client.
func stream(ctx context.Context, w http.ResponseWriter, r *http.Request, fn func(context.Context, func(reconcile.Progress)) (any, error)) {
	rctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	w.Header().Set("Content-Type", "application/x-ndjson")
	var mu sync.Mutex
	last := time.Time{}
	write := func(s step) {
		mu.Lock()
		defer mu.Unlock()
		_ = json.NewEncoder(w).Encode(s)
		_ = http.NewResponseController(w).Flush()
	}
	v, err := fn(rctx, func(p reconcile.Progress) {
		mu.Lock()
		due := time.Since(last) > 50*time.Millisecond
		if due {
			last = time.Now()
		}
		mu.Unlock()
		if due {
			write(step{Progress: &p})
		}
	})
	end := step{}
	if v != nil {
		b, merr := json.Marshal(v)
		end.Result, err = b, errors.Join(err, merr)
	}
	if err != nil {
		end.Error = err.Error()
	}
	write(end)
}

// controlClient calls the handler, wherever it runs.
type controlClient struct {
	http  *http.Client
	noPII bool
	Local bool // there is no daemon: the store is opened here
	close func() error
}

// control connects to the daemon of a configuration, or opens its house.
func (o *options) control(ctx context.Context, std stdio) (*controlClient, error) {
	return o.controlOr(ctx, std, false)
}

// controlOr is control for a command that can do without a ledger: with fresh it gets an empty one, thrown away at the
// end, where there is none yet.
func (o *options) controlOr(ctx context.Context, std stdio, fresh bool) (_ *controlClient, err error) {
	log, err := o.logger(std)
	if err != nil {
		return nil, err
	}
	cfg, drv, problems := loadConfig(o.config, log)
	if problems.Err() != nil {
		return nil, problems.Err()
	}
	conn, err := dialControl(ctx, cfg.DataDir)
	if err == nil {
		_ = conn.Close()
		t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialControl(ctx, cfg.DataDir)
		}}
		return &controlClient{http: &http.Client{Transport: t}, noPII: o.noPII, close: func() error { t.CloseIdleConnections(); return nil }}, nil
	}
	if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("talk to the running daemon: %w", err)
	}
	cleanup := func() error { return nil }
	defer func() {
		if err != nil {
			err = errors.Join(err, cleanup())
		}
	}()
	switch exists := local.Exists(cfg.DataDir); {
	case !exists && fresh:
		dir, err := os.MkdirTemp("", "heed-look-")
		if err != nil {
			return nil, err
		}
		cfg.DataDir, cleanup = dir, func() error { return os.RemoveAll(dir) }
	case !exists:
		return nil, fmt.Errorf("there is no ledger in %s: check data_dir in %s; heed serve creates a new one", cfg.DataDir, o.config)
	}
	h, err := openHouse(cfg, drv, log)
	if err != nil {
		return nil, err
	}
	salesforce.InstallTransport(nil)
	stopWatching := h.gate.Start()
	l := newPipeListener()
	s := &http.Server{Handler: h.controlHandler(ctx)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t := &http.Transport{DialContext: l.dial}
	return &controlClient{http: &http.Client{Transport: t}, noPII: o.noPII, Local: true, close: func() error {
		t.CloseIdleConnections()
		err := s.Close()
		<-done
		stopWatching()
		return errors.Join(err, h.ledger.Close(), cleanup())
	}}, nil
}

// do asks, with a body in JSON or, if it is a reader, as it comes.
func (c *controlClient) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	r, stream := body.(io.Reader)
	if !stream {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://heed"+path, r)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var s step
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if json.Unmarshal(text, &s) != nil || s.Error == "" {
		s.Error = strings.TrimSpace(string(text))
	}
	if resp.StatusCode == http.StatusUnprocessableEntity {
		return nil, usageError{errors.New(s.Error)}
	}
	return nil, errors.New(s.Error)
}

// get reads one JSON answer. names are the fields with people's names that --no-pii masks.
func (c *controlClient) get(ctx context.Context, path string, into any, names ...string) error {
	return c.exchange(ctx, http.MethodGet, path, nil, into, names...)
}

// post asks with a body and reads one JSON answer.
func (c *controlClient) post(ctx context.Context, path string, body, into any) error {
	return c.exchange(ctx, http.MethodPost, path, body, into)
}

func (c *controlClient) exchange(ctx context.Context, method, path string, body, into any, names ...string) error {
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if into == nil {
		into = new(json.RawMessage)
	}
	if !c.noPII {
		return json.NewDecoder(resp.Body).Decode(into)
	}
	doc, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if doc, err = maskAnswer(doc, names...); err != nil {
		return err
	}
	return json.Unmarshal(doc, into)
}

// mask asks the daemon to mask what it renders itself.
func (o *options) mask(sep string) string {
	if o.noPII {
		return sep + "no_pii=1"
	}
	return ""
}

// name is a person's name as it may be printed.
func (o *options) name(s string) string {
	if o.noPII {
		return maskName(s)
	}
	return s
}

// follow reads a streamed answer to its end. The result is filled in even where the answer is an error, as far as it goes.
func (c *controlClient) follow(ctx context.Context, path string, body any, progress func(reconcile.Progress), into any) error {
	resp, err := c.do(ctx, http.MethodPost, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for {
		var s step
		if err := dec.Decode(&s); err != nil {
			return fmt.Errorf("the daemon stopped answering: %w", err)
		}
		if s.Progress != nil {
			progress(*s.Progress)
			continue
		}
		if s.Result != nil {
			if err := json.Unmarshal(s.Result, into); err != nil {
				return err
			}
		}
		if s.Error != "" {
			return errors.New(s.Error)
		}
		return nil
	}
}

// pipeListener is a net.Listener whose connections are pipes within the process.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// verifyReport is what `heed verify` prints.
type verifyReport struct {
	OK           bool     `json:"ok"`
	Records      uint64   `json:"records"`
	Segments     int      `json:"segments"`
	Bytes        int64    `json:"bytes"`
	Head         string   `json:"head"`              // hash of the newest record
	Anchors      []string `json:"anchors,omitempty"` // that were given and found
	Index        uint64   `json:"index"`
	IndexBehind  uint64   `json:"index_behind"`
	IndexSkipped string   `json:"index_skipped,omitempty"`
	Torn         []string `json:"torn,omitempty"`
	Problems     []string `json:"problems"`
}

func newVerifyReport(r local.Report, err error) verifyReport {
	out := verifyReport{
		Records: r.Journal.Records, Segments: r.Journal.Segments, Bytes: r.Journal.Bytes, Head: fmt.Sprintf("%x", r.Journal.Head),
		Index: r.Index, IndexBehind: r.IndexBehind, IndexSkipped: r.IndexSkipped, Torn: r.Journal.Torn, Problems: append([]string{}, r.Differences...),
	}
	if err != nil {
		out.Problems = append(out.Problems, err.Error())
	}
	out.OK = len(out.Problems) == 0
	return out
}
