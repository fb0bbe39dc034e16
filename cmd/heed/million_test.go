package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/local"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/crm/salesforce"
	"github.com/heed-sms/heed/crm/salesforce/salesforcefake"
	"github.com/heed-sms/heed/sms/phone"
	"github.com/heed-sms/heed/sync/reconcile"
)

// BenchmarkMillionPass reads an emulated org of a million records (HEED_MILLION=n for another number) against a ledger of as
// many opted-out numbers, and prints what it cost beside the least that could give the same answer. Each step is a process of
// its own, so that its CPU time and memory are its own; the emulator's are this process's and are not counted.
//
//	network   the same answers of the Bulk API, read and dropped
//	ideal     those answers from a file: CSV by hand, numbers to words, sort, merge. It counts the records that disagree
//	driver    the records as the Salesforce driver gives them, dropped
//	pass      a whole nightly pass in which nothing has changed
//
// Before the rounds a first pass repairs what disagrees; after it the ideal pipeline must find nothing.

const (
	millionEnv = "HEED_BENCH_PASS" // a millionStep as JSON
	millionSQL = "SELECT Id, MobilePhone, Phone, SMS_Opt_Out__c, SystemModstamp, LastModifiedDate, LastModifiedById, LastModifiedBy.Name, CreatedDate FROM "
)

type millionStep struct {
	Step, Dir, URL string
}

type millionResult struct {
	Records  int           // read
	Found    int           // differences
	Bytes    int64         // read from the network or a file
	CPU      time.Duration // user and system
	Wall     time.Duration
	PeakMiB  float64 // resident, the index's mapped pages included
	AnonMiB  float64 // of it not backed by a file, at its highest
	Problems string
}

var millionOrg = salesforcefake.Options{ClientID: "heed-bench", ClientSecret: "heed-bench-secret", Username: "heed@bench.example"}

func (s millionStep) config() salesforce.Config {
	objects := []salesforce.Object{}
	for _, name := range []string{"Contact", "Lead"} {
		objects = append(objects, salesforce.Object{Object: name, Phones: []string{"MobilePhone", "Phone"}, OptOut: salesforce.OptOut{Field: "SMS_Opt_Out__c"}})
	}
	return salesforce.Config{Domain: s.URL, ClientID: millionOrg.ClientID, ClientSecret: salesforce.Secret(millionOrg.ClientSecret), Objects: objects}
}

// runMillion is the child.
func runMillion(spec string) error {
	var s millionStep
	if err := json.Unmarshal([]byte(spec), &s); err != nil {
		return err
	}
	ctx := context.Background()
	step, err := s.prepare(ctx)
	if err != nil {
		return err
	}
	stop := make(chan struct{})
	anon := make(chan float64)
	go func() {
		highest := 0.0
		for t := time.NewTicker(5 * time.Millisecond); ; {
			highest = max(highest, memory("RssAnon"))
			select {
			case <-stop:
				t.Stop()
				anon <- highest
				return
			case <-t.C:
			}
		}
	}()
	cpu, wall := usage(), time.Now()
	r, err := step()
	if err != nil {
		return err
	}
	r.CPU, r.Wall = usage()-cpu, time.Since(wall)
	close(stop)
	r.AnonMiB, r.PeakMiB = <-anon, memory("VmHWM")
	return json.NewEncoder(os.Stdout).Encode(r)
}

func usage() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// memory returns a line of /proc/self/status in MiB.
func memory(name string) float64 {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == name+":" {
			kb, _ := strconv.ParseFloat(f[1], 64)
			return kb / 1024
		}
	}
	return 0
}

// prepare returns what is to be measured; what it does itself is not.
func (s millionStep) prepare(ctx context.Context) (func() (millionResult, error), error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	switch s.Step {
	case "network":
		return func() (millionResult, error) { return s.download(io.Discard) }, nil
	case "ideal":
		out, err := os.ReadFile(filepath.Join(s.Dir, "numbers"))
		if err != nil {
			return nil, err
		}
		numbers := make([]uint64, 0, len(out)/8)
		for ; len(out) > 0; out = out[8:] {
			numbers = append(numbers, binary.BigEndian.Uint64(out))
		}
		return func() (millionResult, error) { return ideal(filepath.Join(s.Dir, "records.csv"), numbers) }, nil
	case "driver":
		salesforce.InstallTransport(nil)
		org, err := salesforce.New(s.config(), log)
		if err != nil {
			return nil, err
		}
		return func() (r millionResult, _ error) {
			for page, err := range org.Scan(ctx, crm.Key{}) {
				if err != nil {
					return r, err
				}
				r.Records += len(page.Records)
			}
			return r, nil
		}, nil
	}
	l, err := local.Open(filepath.Join(s.Dir, "ledger"), local.Options{Logger: log})
	if err != nil {
		return nil, err
	}
	if s.Step == "numbers" { // the ledger's opted-out numbers, for the ideal pipeline
		return func() (r millionResult, err error) {
			var b []byte
			for n, err := range l.Numbers(ctx, phone.Number{}) {
				if err != nil {
					return r, err
				}
				if n.Facts.State() == consent.OptedOut {
					b = binary.BigEndian.AppendUint64(b, n.Number.Uint64())
				}
			}
			return r, os.WriteFile(filepath.Join(s.Dir, "numbers"), b, 0o600)
		}, nil
	}
	salesforce.InstallTransport(nil)
	org, err := salesforce.New(s.config(), log)
	if err != nil {
		return nil, err
	}
	runner := &reconcile.Runner{
		Ledger: l, CRMs: []reconcile.CRM{{Name: "salesforce", Directory: org}},
		Inbox:  &connector.Inbox{Ledger: l, Replies: reply.Default(), Log: log, Now: time.Now},
		Boxes:  &connector.Boxes{Ledger: l, CRMs: []connector.CRM{{Name: "salesforce", Directory: org}}, Log: log, Now: time.Now},
		Region: "US", Started: time.Now(), Log: log, Now: time.Now,
	}
	return func() (r millionResult, err error) {
		res, err := runner.Run(ctx, reconcile.Options{Kind: reconcile.Nightly})
		for _, n := range res.Pass.Causes {
			r.Found += n
		}
		r.Records, r.Problems = res.Pass.Counts["records_read"], res.Pass.Error
		return r, err
	}, nil
}

// download runs the Bulk API 2.0 query that answers all there is to know, and copies its pages.
func (s millionStep) download(w io.Writer) (r millionResult, err error) {
	login := url.Values{"grant_type": {"client_credentials"}, "client_id": {millionOrg.ClientID}, "client_secret": {millionOrg.ClientSecret}}
	resp, err := http.PostForm(s.URL+"/services/oauth2/token", login)
	if err != nil {
		return r, err
	}
	var token struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&token); err != nil {
		return r, err
	}
	resp.Body.Close()
	call := func(method, path, body string) (*http.Response, error) {
		req, err := http.NewRequest(method, s.URL+"/services/data/v62.0/jobs/query"+path, strings.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+token.Token)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err == nil && resp.StatusCode/100 != 2 {
			b, _ := io.ReadAll(resp.Body)
			err = fmt.Errorf("%s %s: %d %s", method, path, resp.StatusCode, b)
		}
		return resp, err
	}
	for _, object := range []string{"Contact", "Lead"} {
		query := millionSQL + object
		if object == "Lead" {
			query += " WHERE IsConverted = false"
		}
		body, _ := json.Marshal(map[string]string{"operation": "query", "query": query})
		resp, err := call("POST", "", string(body))
		if err != nil {
			return r, err
		}
		var job struct{ ID, State string }
		if err := json.NewDecoder(resp.Body).Decode(&job); err != nil {
			return r, err
		}
		resp.Body.Close()
		poll := time.NewTicker(5 * time.Millisecond)
		for job.State != "JobComplete" {
			resp, err := call("GET", "/"+job.ID, "")
			if err != nil {
				return r, err
			}
			if err := json.NewDecoder(resp.Body).Decode(&job); err != nil {
				return r, err
			}
			resp.Body.Close()
			if job.State == "Failed" || job.State == "Aborted" {
				return r, fmt.Errorf("the job is %s", job.State)
			}
			<-poll.C
		}
		poll.Stop()
		for locator := ""; locator != "null"; {
			resp, err := call("GET", "/"+job.ID+"/results?maxRecords=20000&locator="+locator, "")
			if err != nil {
				return r, err
			}
			n, err := io.Copy(w, resp.Body)
			resp.Body.Close()
			if err != nil {
				return r, err
			}
			r.Bytes += n
			rows, _ := strconv.Atoi(resp.Header.Get("Sforce-NumberOfRecords"))
			r.Records += rows
			locator = resp.Header.Get("Sforce-Locator")
		}
	}
	return r, nil
}

// ideal counts the records whose box disagrees with the sorted opted-out numbers: what a program would do that did nothing
// else, and remembered nothing.
func ideal(file string, out []uint64) (r millionResult, _ error) {
	f, err := os.Open(file)
	if err != nil {
		return r, err
	}
	defer f.Close()
	type entry struct {
		number uint64
		record uint32 // its place in ticked
	}
	var entries []entry
	var ticked []bool
	var fields [4][]byte
	in := bufio.NewReaderSize(f, 256<<10)
	for {
		line, err := in.ReadSlice('\n')
		if err == io.EOF {
			break
		}
		if err != nil {
			return r, err
		}
		r.Bytes += int64(len(line))
		for i := range fields {
			fields[i], line, _ = bytes.Cut(line, []byte(","))
			fields[i] = bytes.Trim(fields[i], `"`)
		}
		if string(fields[0]) == "Id" {
			continue
		}
		for _, raw := range fields[1:3] {
			if n, err := phone.Parse(string(raw), "US"); len(raw) > 0 && err == nil {
				entries = append(entries, entry{n.Uint64(), uint32(len(ticked))})
			}
		}
		ticked = append(ticked, string(fields[3]) == "true")
	}
	r.Records = len(ticked)
	// A radix sort by 11 bits at a time; 15 digits have 50 bits.
	other := make([]entry, len(entries))
	for shift := 0; shift < 55; shift += 11 {
		var at [1<<11 + 1]int
		for _, e := range entries {
			at[e.number>>shift&(1<<11-1)+1]++
		}
		for i := range 1 << 11 {
			at[i+1] += at[i]
		}
		for _, e := range entries {
			d := e.number >> shift & (1<<11 - 1)
			other[at[d]] = e
			at[d]++
		}
		entries, other = other, entries
	}
	const numbered, opted = 1, 2
	state := make([]byte, len(ticked))
	for _, e := range entries {
		for len(out) > 0 && out[0] < e.number {
			out = out[1:]
		}
		state[e.record] |= numbered
		if len(out) > 0 && out[0] == e.number {
			state[e.record] |= opted
		}
	}
	for i, s := range state {
		if s&numbered != 0 && ticked[i] != (s&opted != 0) {
			r.Found++
		}
	}
	return r, nil
}

func BenchmarkMillionPass(b *testing.B) {
	const rounds = 5
	n := 1_000_000
	if s := os.Getenv("HEED_MILLION"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil || n < 100_000 {
			b.Fatalf("HEED_MILLION=%q: want a number from 100000", s)
		}
	}
	var perRecord []float64
	for _, size := range []int{n / 100, n / 10, n} {
		steps := []string{"network", "pass"}
		if size == n {
			steps = []string{"network", "ideal", "driver", "pass"}
		}
		run := millionWorld(b, size)
		cpu, peak, anon := map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
		for range rounds {
			for _, s := range steps {
				r := run(s)
				if s != "ideal" && r.Records < size || r.Found != 0 {
					b.Fatalf("%s: read %d records, found %d differences", s, r.Records, r.Found)
				}
				cpu[s], peak[s], anon[s] = append(cpu[s], r.CPU.Seconds()), append(peak[s], r.PeakMiB), append(anon[s], r.AnonMiB)
			}
		}
		fmt.Printf("%d rounds, median [worst]\n%-10s %18s %18s %18s\n", rounds, "", "CPU s", "peak MiB", "anonymous MiB")
		for _, s := range steps {
			fmt.Printf("%-10s %9.2f [%5.2f] %10.0f [%4.0f] %10.0f [%4.0f]\n", s, median(cpu[s]), slices.Max(cpu[s]), median(peak[s]), slices.Max(peak[s]), median(anon[s]), slices.Max(anon[s]))
		}
		var own []float64 // what heed adds to reading
		for i := range rounds {
			own = append(own, cpu["pass"][i]-cpu["network"][i])
		}
		fmt.Printf("pass without network: %.2f s of CPU [%.2f]", median(own), slices.Max(own))
		if size == n {
			fmt.Printf(", %.1f × the ideal pipeline", median(own)/median(cpu["ideal"]))
			b.ReportMetric(median(own), "CPU-s/pass")
			b.ReportMetric(median(anon["pass"]), "anon-MiB")
		}
		fmt.Println()
		perRecord = append(perRecord, median(own)/float64(size)*1e6)
	}
	fmt.Printf("\nµs a record at %d, %d and %d records: %.2f, %.2f, %.2f\n", n/100, n/10, n, perRecord[0], perRecord[1], perRecord[2])
	b.ReportMetric(0, "ns/op")
}

// millionWorld seeds an org of n records and a ledger, brings them into step, and returns what runs a step in a process of its
// own.
func millionWorld(b *testing.B, n int) (run func(step string) millionResult) {
	dir := b.TempDir()
	began := time.Now()
	org := salesforcefake.New(millionOrg)
	b.Cleanup(org.Close)
	org.Seed(n, 1)
	fmt.Printf("\n%d records seeded in %s\n", n, time.Since(began).Round(time.Millisecond))
	w := &world{org: org}
	b.Cleanup(w.close)
	base, err := w.serve("127.0.0.1:0", org.Handler())
	if err != nil {
		b.Fatal(err)
	}
	org.SetURL(base)
	fillLedger(b, filepath.Join(dir, "ledger"), n)
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	run = func(step string) (r millionResult) {
		b.Helper()
		spec, _ := json.Marshal(millionStep{step, dir, base})
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), millionEnv+"="+string(spec))
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			b.Fatalf("%s: %v", step, err)
		}
		if err := json.Unmarshal(out, &r); err != nil {
			b.Fatalf("%s: %v", step, err)
		}
		if r.Problems != "" {
			b.Fatalf("%s: %s", step, r.Problems)
		}
		return r
	}
	save := func() {
		run("numbers")
		f, err := os.Create(filepath.Join(dir, "records.csv"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		if _, err := (millionStep{URL: base}).download(f); err != nil {
			b.Fatal(err)
		}
	}
	save()
	before := run("ideal")
	first := run("pass")
	save()
	if after := run("ideal"); before.Found == 0 || after.Found != 0 {
		b.Fatalf("%d records disagreed before the first pass, %d after it", before.Found, after.Found)
	}
	fmt.Printf("first pass: %d records disagree by the ideal pipeline; heed makes %d corrections, after which none does. %.2f s of CPU, peak %.0f MiB, %.0f of them anonymous\n",
		before.Found, first.Found, first.CPU.Seconds(), first.PeakMiB, first.AnonMiB)
	return run
}

// fillLedger records n opted-out numbers whose work is done, a few thousand of them ones that the seeded org knows.
func fillLedger(b *testing.B, dir string, n int) {
	b.Helper()
	l, err := local.Open(dir, local.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			b.Error(err)
		}
	}()
	at := time.Now().Add(-24 * time.Hour).UTC()
	const batch = 4000
	for from := 0; from < n; from += batch {
		var events []ledger.Event
		for i := from; i < min(from+batch, n); i++ {
			area, line, office := 201+i%700, i/700%10_000, 556
			if i%200 == 0 {
				office = 555 // where the org's people live
			}
			number := phone.FromUint64(1_000_000_0000 + uint64(area)*1_000_0000 + uint64(office)*1_0000 + uint64(line))
			events = append(events, ledger.Event{Kind: ledger.KindInbound, At: at, Number: number,
				Inbound: &ledger.Inbound{Account: "twilio", ProviderID: fmt.Sprintf("SM%032x", i), From: number.String(), Body: "STOP", Verdict: reply.OptOut}})
		}
		receipts, err := l.Append(b.Context(), events...)
		if err != nil {
			b.Fatal(err)
		}
		done := make([]ledger.Event, len(events))
		for i, e := range events {
			done[i] = ledger.Event{Kind: ledger.KindWritten, At: at, Number: e.Number, Written: &ledger.Written{UpTo: receipts[i].Seq, Want: true}}
		}
		if _, err := l.Append(b.Context(), done...); err != nil {
			b.Fatal(err)
		}
	}
}
