package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/heed-sms/heed/connector/people"
	"github.com/heed-sms/heed/sync/reconcile"
)

func demoCommand(std stdio, o *options) *cobra.Command {
	var exit bool
	var records int
	c := &cobra.Command{
		Use:   "demo",
		Short: "Watch heed work, without any account",
		Long: `Start a whole world on this machine (a Salesforce org with people in it, a Twilio account, and heed between them),
and play the story: a workflow sends a text, the person answers STOP, the box ticks on each of their records, the next
send is refused, an admin unticks a box, the pass finds it, ticks it again and names who it was.

Everything is real but the two services: the same daemon, ledger and drivers, over HTTP on loopback. Nothing leaves the
machine, and nothing is kept.

With --exit the command ends after the story: with 0 if every step held, with 1 otherwise.`,
		Example: "  heed demo\n  heed demo --exit",
		RunE: func(c *cobra.Command, _ []string) error {
			if !c.Flags().Changed("log-level") {
				o.logLevel = "error" // the story is the output
			}
			log, err := o.logger(std)
			if err != nil {
				return err
			}
			dir, err := os.MkdirTemp("", "heed-demo-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(dir)
			w, err := newWorld(worldOptions{salesforce: "127.0.0.1:0", twilio: "127.0.0.1:0", heed: "127.0.0.1:0", records: records, seed: 1})
			if err != nil {
				return err
			}
			defer w.close()
			path := filepath.Join(dir, "heed.yaml")
			// The passes of the story are run by hand, so that each step is seen to work by itself.
			cfgText := strings.Replace(w.config(), "@every 2s", "@every 1h", 1)
			if err := os.WriteFile(path, []byte(cfgText), 0o600); err != nil {
				return err
			}
			cfg, drv, problems := loadConfig(path, log)
			if problems.Err() != nil {
				return problems.Err()
			}
			ctx, cancel := context.WithCancel(c.Context())
			defer cancel()
			// Where nobody reads any more (heed demo | head), a write is to fail and not to end the process: the directory goes.
			signal.Ignore(syscall.SIGPIPE)
			defer signal.Reset(syscall.SIGPIPE)
			out := &watchedWriter{w: std.Out, failed: cancel}
			up := make(chan *daemon, 1)
			ended := make(chan error, 1)
			go func() { ended <- serve(ctx, cfg, drv, log, func(d *daemon) { up <- d }) }()
			select {
			case err := <-ended:
				return err
			case d := <-up:
				s := &story{world: w, daemon: d, std: stdio{In: std.In, Out: out, Err: std.Err}, dataDir: cfg.DataDir}
				_, s.colour = terminal(std.Out)
				failed := s.play(ctx)
				if !failed && !exit && ctx.Err() == nil {
					s.epilogue(ctx)
					<-ctx.Done()
				}
				cancel()
				if err := <-ended; err != nil {
					return err
				}
				if failed || out.err != nil {
					return errFailed // nobody reads why
				}
				return nil
			}
		},
	}
	c.Flags().BoolVar(&exit, "exit", false, "end after the story")
	c.Flags().IntVar(&records, "records", 300, "people to seed the org with, beside the one of the story")
	return c
}

// watchedWriter says when nothing can be written any more.
type watchedWriter struct {
	w      io.Writer
	failed func()
	err    error // the first
}

func (w *watchedWriter) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	if err != nil && w.err == nil {
		w.err = err
		w.failed()
	}
	return n, err
}

// story plays the main job and checks each step.
type story struct {
	*world
	daemon  *daemon
	std     stdio
	dataDir string
	colour  bool
	began   time.Time
}

func (s *story) play(ctx context.Context) (failed bool) {
	records := s.ada
	boss := s.org.AddUser("max.admin@sandbox.example", "Max", "Admin")
	var unticked record
	steps := []struct {
		what string
		do   func(context.Context) (string, error)
	}{
		{"heed reads every record of the org once", func(ctx context.Context) (string, error) {
			res, err := s.daemon.passes.Run(ctx, reconcile.Options{Kind: reconcile.Manual, Full: true})
			if err == nil && res.Pass.Error != "" {
				err = errors.New(res.Pass.Error)
			}
			n, lerr := s.daemon.ledger.Mirror("salesforce").Len(ctx)
			return fmt.Sprintf("%d records; %s is on %d of them, in %d spellings", n, ada.Masked(), len(records), len(records)), errors.Join(err, lerr)
		}},
		{"a CRM workflow sends Ada a text through heed", func(ctx context.Context) (string, error) {
			m, err := s.send(ctx, "Hi Ada, your appointment is on Tuesday at 3.")
			if err != nil || m.Status != "sent" {
				return "", fmt.Errorf("want it sent, got status %q, %v", m.Status, err)
			}
			if n := s.received("Hi Ada, your appointment is on Tuesday at 3."); n != 1 {
				return "", fmt.Errorf("the phone has it %d times", n)
			}
			return "sent; the phone has it once", nil
		}},
		{"Ada texts STOP", func(ctx context.Context) (string, error) {
			took, err := s.text(ctx, "STOP")
			return fmt.Sprintf("acknowledged to Twilio %s after the text, on disk", short(took)), err
		}},
		{"the box ticks itself on every record of hers", func(ctx context.Context) (string, error) {
			for _, r := range records {
				if err := s.until(ctx, func() bool { return s.box(r) }); err != nil {
					return "", fmt.Errorf("%s %s: %w", r.object, r.id, err)
				}
			}
			return fmt.Sprintf("%d of %d, through the Salesforce API", len(records), len(records)), nil
		}},
		{"the workflow tries to send again", func(ctx context.Context) (string, error) {
			m, err := s.send(ctx, "Hi Ada, one more offer!")
			if err != nil || m.Status != "blocked" || m.Reason != "opted_out" {
				return "", fmt.Errorf("want it blocked, got status %q reason %q, %v", m.Status, m.Reason, err)
			}
			if n := s.received("Hi Ada, one more offer!"); n != 0 {
				return "", fmt.Errorf("the phone has it %d times", n)
			}
			return "refused: opted_out; nothing was handed to Twilio", nil
		}},
		{"an admin unticks one of the boxes", func(context.Context) (string, error) {
			unticked = records[0]
			err := s.org.UpdateAs(boss, unticked.object, unticked.id, map[string]any{"SMS_Opt_Out__c": false})
			return "Max Admin, on the " + unticked.object, err
		}},
		{"the reconciliation finds it and ticks it again", func(ctx context.Context) (string, error) {
			res, err := s.daemon.passes.Run(ctx, reconcile.Options{Kind: reconcile.Manual})
			if err != nil {
				return "", err
			}
			for _, c := range res.Corrections {
				if c.Cause == "unticked" && c.Record != nil && c.Record.ID == unticked.id && strings.Contains(c.By, "Max Admin") {
					if err := s.until(ctx, func() bool { return s.box(unticked) }); err != nil {
						return "", err
					}
					s.report(ctx, res.Pass.ID)
					return "cause: " + c.Cause + ", by " + c.By, nil
				}
			}
			return "", fmt.Errorf("the report does not name it: %+v", res.Corrections)
		}},
		{"a second pass finds nothing to do", func(ctx context.Context) (string, error) {
			res, err := s.daemon.passes.Run(ctx, reconcile.Options{Kind: reconcile.Manual, Full: true})
			if err == nil && len(res.Corrections) > 0 {
				err = fmt.Errorf("it corrected %d more: %s (%s)", len(res.Corrections), res.Corrections[0].Cause, res.Corrections[0].Detail)
			}
			return "every record read again, no difference", err
		}},
		{"the ledger proves that it is whole", func(ctx context.Context) (string, error) {
			rep, err := s.daemon.ledger.Verify(ctx, nil)
			if err == nil && !rep.Sound() {
				err = errors.New(strings.Join(rep.Differences, "; "))
			}
			return fmt.Sprintf("%d events, hash chain unbroken, index equal to it", rep.Journal.Records), err
		}},
	}
	s.began = time.Now()
	fmt.Fprintf(s.std.Out, "heed demo: Salesforce, Twilio and heed on this machine\n\n")
	outer := ctx
	for i, step := range steps {
		ctx, cancel := context.WithTimeout(outer, 30*time.Second)
		began := time.Now()
		said, err := step.do(ctx)
		interrupted := outer.Err() != nil
		cancel()
		if interrupted {
			return false
		}
		mark := s.paint(text.FgGreen, "ok  ")
		if err != nil {
			mark, said, failed = s.paint(text.FgRed, "FAIL"), err.Error(), true
		}
		fmt.Fprintf(s.std.Out, "%s %d. %-50s %8s   %s\n", mark, i+1, step.what, short(time.Since(began)), said)
		if failed {
			fmt.Fprintln(s.std.Out, "\nThe story ends here: a step did not hold. Run again with --log-level debug.")
			return true
		}
	}
	fmt.Fprintf(s.std.Out, "\nevery step held, in %s\n", short(time.Since(s.began)))
	return false
}

func (s *story) paint(c text.Color, t string) string {
	if !s.colour {
		return t
	}
	return c.Sprint(t)
}

func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}

// sendAnswer is what the demo reads of the gate's answer.
type sendAnswer struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	Reason string `json:"reason"`
}

// send asks the gate as a CRM workflow does: over HTTP, with the API key.
func (s *story) send(ctx context.Context, body string) (m sendAnswer, err error) {
	b, _ := json.Marshal(map[string]string{"to": "(415) 555-0142", "body": body, "campaign": "demo"})
	req, err := http.NewRequestWithContext(ctx, "POST", s.publicURL()+"/v1/messages", bytes.NewReader(b))
	if err != nil {
		return m, err
	}
	req.Header.Set("Authorization", "Bearer "+s.apiKey)
	req.Header.Set("Content-Type", "application/json")
	return m, doJSON(req, http.StatusCreated, &m)
}

// text plays the phone: Twilio's emulator delivers it as a signed webhook.
func (s *story) text(ctx context.Context, body string) (time.Duration, error) {
	b, _ := json.Marshal(map[string]string{"from": ada.String(), "to": s.from, "body": body})
	req, err := http.NewRequestWithContext(ctx, "POST", s.twilioURL+"/sandbox/texts", bytes.NewReader(b))
	if err != nil {
		return 0, err
	}
	began := time.Now()
	var out struct {
		Webhook struct {
			Status int    `json:"status"`
			Error  string `json:"error"`
		} `json:"webhook"`
	}
	if err := doJSON(req, http.StatusCreated, &out); err != nil {
		return 0, err
	}
	if out.Webhook.Status != http.StatusOK {
		return 0, fmt.Errorf("the webhook got %d %s", out.Webhook.Status, out.Webhook.Error)
	}
	return time.Since(began), nil
}

func doJSON(req *http.Request, want int, into any) error {
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != want {
		return fmt.Errorf("HTTP %d: %s", resp.StatusCode, b)
	}
	return json.Unmarshal(b, into)
}

// received counts a text on Ada's phone.
func (s *story) received(body string) (n int) {
	for _, t := range s.twilio.Inbox(ada.String()) {
		if t.To == ada.String() && t.Body == body {
			n++
		}
	}
	return n
}

func (s *story) box(r record) bool {
	fields, ok := s.org.Get(r.object, r.id)
	ticked, _ := fields["SMS_Opt_Out__c"].(bool)
	return ok && ticked
}

func (s *story) until(ctx context.Context, done func() bool) error {
	t := time.NewTicker(2 * time.Millisecond)
	defer t.Stop()
	deadline := time.After(10 * time.Second)
	for !done() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			return errors.New("not within ten seconds")
		case <-t.C:
		}
	}
	return nil
}

// report prints a pass's report, indented into the story.
func (s *story) report(ctx context.Context, id string) {
	p, err := s.daemon.report(ctx, id)
	if err != nil {
		return
	}
	var b bytes.Buffer
	if s.daemon.render(&b, p, s.daemon.ledger.Corrections(ctx, id), "text") == nil {
		for _, line := range strings.Split(strings.TrimRight(b.String(), "\n"), "\n") {
			fmt.Fprintln(s.std.Out, "     | "+line)
		}
	}
}

// epilogue says what to try next, while everything stays up.
func (s *story) epilogue(ctx context.Context) {
	link, _, err := s.daemon.people.Invite(ctx, "you", people.Admin, "heed demo", "")
	if err != nil {
		link = "http://" + s.heedAdmin + "/  (" + err.Error() + ")"
	}
	fmt.Fprintf(s.std.Out, `
It all stays up until Ctrl-C. The admin page, where you choose a password (the link works once, for 15 minutes):

  %[8]s

Try:

  # text back as Ada (START lifts her STOP; "pls stop texting me" does not)
  curl -s %[1]s/sandbox/texts -d '{"from":"%[2]s","to":"%[3]s","body":"START"}'
  # what her phone got
  curl -s '%[1]s/sandbox/texts?phone=%[4]s'
  # send as a CRM workflow
  curl -s %[5]s/v1/messages -H 'Authorization: Bearer %[6]s' -H 'Content-Type: application/json' -d '{"to":"(415) 555-0142","body":"Hello"}'
  # metrics
  curl -s http://%[7]s/metrics
`, s.twilioURL, ada, s.from, url.QueryEscape(ada.String()), s.publicURL(), s.apiKey, s.heedAdmin, link)
}
