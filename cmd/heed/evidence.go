package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/heed-sms/heed/connector/evidence"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/chain"
	"github.com/heed-sms/heed/connector/ledger/journal"
	"github.com/heed-sms/heed/sms/phone"
)

// evidenceFlags are the flags of the history command for a packet.
type evidenceFlags struct {
	file, why string
	overwrite bool
}

func (f *evidenceFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.file, "evidence", "", "write an evidence packet to `FILE`, a zip")
	c.Flags().StringVar(&f.why, "why", "", "with --evidence: the reason, for the record and the packet")
	c.Flags().BoolVar(&f.overwrite, "overwrite", false, "with --evidence: replace FILE if it exists")
}

// asked reports whether a packet is asked for.
func (f *evidenceFlags) asked(c *cobra.Command) (bool, error) {
	is := c.Flags().Changed("evidence")
	switch {
	case !is && (f.why != "" || f.overwrite):
		return false, usageError{errors.New("--why and --overwrite go with --evidence FILE")}
	case is && c.Flags().Changed("json"):
		return false, usageError{errors.New("--json prints the history and --evidence writes a packet; use one of them")}
	}
	return is, nil
}

// evidenceRequest asks for a packet.
type evidenceRequest struct {
	Who string `json:"who"`
	Why string `json:"why,omitempty"`
}

func (h *house) evidenceRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /evidence/{number}", func(w http.ResponseWriter, r *http.Request) {
		// The packet is whole before the first byte of it is sent, so that what goes wrong can be told.
		dir, err := os.MkdirTemp("", "heed-evidence-")
		if err == nil {
			defer os.RemoveAll(dir)
			var f *os.File
			if f, err = os.Create(filepath.Join(dir, "packet.zip")); err == nil {
				defer f.Close()
				err = h.evidence(r, f)
			}
			if err == nil {
				w.Header().Set("Content-Type", "application/zip")
				http.ServeContent(w, r, "", time.Time{}, f)
				return
			}
		}
		answer(w, func() (any, error) { return nil, err })
	})
}

// evidence records that somebody asks for a number's evidence and writes the packet.
func (h *house) evidence(r *http.Request, w io.Writer) error {
	var ask evidenceRequest
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<14)).Decode(&ask); err != nil {
		return err
	}
	n, err := phone.Parse(r.PathValue("number"), h.cfg.Consent.DefaultRegion)
	if err != nil {
		return err
	}
	return h.writeEvidence(r.Context(), w, n, ask.Who, "command line", ask.Why)
}

// writeEvidence records who asks for a number's evidence, where and why, and writes the packet.
func (h *house) writeEvidence(ctx context.Context, w io.Writer, n phone.Number, who, via, why string) error {
	known := false
	for _, err := range h.ledger.History(ctx, n) {
		if err != nil {
			return err
		}
		known = true
		break
	}
	if !known { // the record of the export would make it known
		return fmt.Errorf("nothing is known about this number: %w", ledger.ErrNotFound)
	}
	now := time.Now().UTC().Truncate(time.Second)
	if _, err := h.ledger.Append(ctx, ledger.Event{Kind: ledger.KindAct, At: now, Number: n,
		Act: &ledger.Act{Who: who, Via: via, What: "evidence", Detail: n.Masked(), Why: why}}); err != nil {
		return err
	}
	_, err := evidence.Write(ctx, w, h.ledger, evidence.Options{Number: n, At: now, By: who, Why: why, Heed: versionString(), Zone: h.cfg.Schedule.Location()})
	return err
}

// exportEvidence asks for a packet, checks it, and only then gives it its name.
func exportEvidence(ctx context.Context, o *options, std stdio, number string, flags evidenceFlags) (err error) {
	if flags.file == "" || flags.file == "-" {
		return usageError{errors.New("--evidence wants the name of a file to write")}
	}
	exists := fmt.Errorf("%s exists and is left as it is; choose another name, or say --overwrite", flags.file)
	if _, err := os.Lstat(flags.file); err == nil && !flags.overwrite {
		return exists
	}
	// Before the daemon records that it was asked for.
	f, err := os.CreateTemp(filepath.Dir(flags.file), ".heed-evidence-*")
	if err != nil {
		return fmt.Errorf("write the packet: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	client, err := o.control(ctx, std)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.close()) }()
	resp, err := client.do(ctx, http.MethodPost, "/evidence/"+url.PathEscape(number), evidenceRequest{whoami(), flags.why})
	if errors.Is(err, ledger.ErrNotFound) {
		return errors.New("nothing is known about this number; there is no evidence to write")
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(f, resp.Body)
	if err = errors.Join(err, f.Sync()); err != nil {
		return fmt.Errorf("the packet is incomplete and was removed: %w", err)
	}
	rep, err := evidence.Verify(f, n)
	if err != nil {
		return fmt.Errorf("the packet is not sound and was removed; heed verify looks at the ledger: %w", err)
	}
	if err := name(f.Name(), flags.file, flags.overwrite); errors.Is(err, fs.ErrExist) {
		return exists
	} else if err != nil {
		return fmt.Errorf("write the packet: %w", err)
	}
	pk := rep.Packet
	fmt.Fprintf(std.Err, `%s: %s, %s. The packet ends at event %d.
To have it proven by a report's anchor, export again after the next nightly report.
Or keep this anchor outside heed now: %d:%s
`, flags.file, plural(pk.Records, "record"), plural(int(n), "byte"), pk.Head, pk.Head, pk.HeadHash)
	if pk.LeftOut > 0 {
		fmt.Fprintf(std.Err, "Not in it: %s, made by a build of heed before its first release, which cannot be proven\n", plural(pk.LeftOut, "earlier record"))
	}
	return nil
}

// name gives a finished file its name; without overwrite it does not take one that exists, not even one that appeared a
// moment ago.
func name(tmp, path string, overwrite bool) error {
	if !overwrite {
		err := os.Link(tmp, path)
		if err == nil || errors.Is(err, fs.ErrExist) {
			return err
		}
		if _, err := os.Lstat(path); err == nil { // a file system without links
			return fs.ErrExist
		}
	}
	return os.Rename(tmp, path)
}

func parseAnchors(args []string) ([]evidence.Known, error) {
	var out []evidence.Known
	for _, a := range args {
		k, err := evidence.ParseKnown(a)
		if err != nil {
			return nil, fmt.Errorf("--anchor: %w", err)
		}
		out = append(out, k)
	}
	return out, nil
}

// asKept turns anchors into what the journal is checked against.
func asKept(known []evidence.Known) ([]journal.Anchor, error) {
	var out []journal.Anchor
	for _, k := range known {
		if k.Seq == 0 {
			return nil, errors.New("--anchor: for the ledger it must name the event too, as SEQ:HASH; the anchor line of the report has both")
		}
		out = append(out, journal.Anchor{Seq: k.Seq, Hash: chain.Hash(k.Hash)})
	}
	return out, nil
}

// evidenceReport is what `heed verify --evidence --json` prints.
type evidenceReport struct {
	OK        bool             `json:"ok"`
	Packet    *evidence.Packet `json:"packet,omitempty"`
	Links     int              `json:"links,omitempty"`
	Reports   int              `json:"reports,omitempty"` // whose anchors the chain goes through
	Proven    []evidence.Vouch `json:"proven,omitempty"`  // by each --anchor
	NotProven []string         `json:"not_proven,omitempty"`
	Problems  []string         `json:"problems"`
}

func verifyEvidence(std stdio, o *options, path string, known []evidence.Known) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file", path)
	}
	found, err := evidence.Verify(f, fi.Size(), known...)
	rep := evidenceReport{OK: err == nil, Problems: []string{}}
	if err != nil {
		rep.Problems = append(rep.Problems, err.Error())
	} else {
		rep.Packet, rep.Links, rep.Reports, rep.Proven = &found.Packet, found.Steps, len(found.Anchors)-1, found.Vouched
		rep.NotProven = notProven(found)
	}
	err = o.print(std, rep, func() error { printEvidence(std.Out, path, rep); return nil })
	if err == nil && !rep.OK {
		err = errFailed
	}
	return err
}

// notProven says plainly what a sound packet does not prove.
func notProven(r evidence.Report) (out []string) {
	best := evidence.Vouch{}
	for _, v := range r.Vouched {
		if v.Records > best.Records {
			best = v
		}
	}
	pk := r.Packet
	switch {
	case len(r.Vouched) == 0:
		out = append(out, fmt.Sprintf("that these records are what heed recorded at the time: for that, one of the hashes must be known from elsewhere. Compare event %d, SHA-256 %s, or run again with --anchor and the anchor line of a report that was kept", pk.Head, pk.HeadHash))
	case best.Records < pk.Records:
		out = append(out, fmt.Sprintf("the last %s: later than the anchor", plural(pk.Records-best.Records, "record")))
	}
	if pk.LeftOut > 0 {
		out = append(out, fmt.Sprintf("what the packet says is not in it: %s", plural(pk.LeftOut, "earlier record")))
	}
	return append(out, "that no record of the number was left out, who exported it, its local times (those in UTC are), and that what heed was told is true")
}

// plural is a count of things in words: "1 record", "2 records".
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func printEvidence(w io.Writer, path string, r evidenceReport) {
	for _, p := range r.Problems {
		fmt.Fprintf(w, "REFUSED  %s: %s\n", path, p)
	}
	if !r.OK {
		return
	}
	pk := r.Packet
	fmt.Fprintf(w, "ok  records: %d about %s, events %d to %d, each of them what its digest says\n", pk.Records, pk.Number, pk.First, pk.Last)
	fmt.Fprintf(w, "ok  chain:   %s to event %d, unbroken, through the anchors of %s\n", plural(r.Links, "link"), pk.Head, plural(r.Reports, "report"))
	fmt.Fprintf(w, "ok  summary: every other byte of the packet is what the records amount to\n")
	for _, v := range r.Proven {
		// What the packet calls it is whoever's word who made the packet, so it does not reach the terminal unquoted.
		from := "an event between the packet's anchors"
		switch {
		case v.Anchor.Report != "":
			from = fmt.Sprintf("the packet says report %q", v.Anchor.Report)
		case v.Anchor.Kind != "":
			from = "the end at the time of export"
		}
		fmt.Fprintf(w, "ok  anchor:  %d:%s, %s: proves the first %d of %s\n", v.Anchor.Seq, v.Anchor.Hash, from, v.Records, plural(pk.Records, "record"))
	}
	for _, n := range r.NotProven {
		fmt.Fprintln(w, "not proven:  "+n)
	}
}
