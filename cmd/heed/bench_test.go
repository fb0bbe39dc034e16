package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/local"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/sms/phone"
	"github.com/heed-sms/heed/sms/twilio"
)

// The benchmark starts this test binary again as a server, so that the server's CPU time is its own, and measures
// heed's addresses against floors on the same listener, in interleaved rounds. Only ratios within a round mean
// anything: the disk and the machine vary by an order of magnitude between runs.

const (
	benchServerEnv = "HEED_BENCH_SERVER"
	benchSID       = "AC00000000000000000000000000000001"
	benchToken     = "0123456789abcdef0123456789abcdef"
	benchKey       = "bench-key"
	benchPublic    = "https://sms.example.com"
	benchNumbers   = 100_000
)

// serveBench is the child: floors and heed on one listener. It prints its address and ends with its standard input.
func serveBench(dir string) error {
	log := slog.New(slog.DiscardHandler)
	l, err := local.Open(dir, local.Options{Logger: log})
	if err != nil {
		return err
	}
	defer l.Close()
	var events []ledger.Event
	for i := range benchNumbers {
		n := phone.FromUint64(12_065_550_000 + uint64(i)*7)
		events = append(events, ledger.Event{Kind: ledger.KindInbound, At: time.Now(), Number: n,
			Inbound: &ledger.Inbound{Account: "twilio", ProviderID: fmt.Sprint("old", i), From: n.String(), Body: "STOP", Verdict: reply.OptOut}})
		if len(events) == 2000 {
			if _, err := l.Append(context.Background(), events...); err != nil {
				return err
			}
			events = events[:0]
		}
	}
	p, err := twilio.New(twilio.Config{AccountSID: benchSID, AuthToken: benchToken, From: "+15550100000"}, &http.Client{Timeout: time.Second})
	if err != nil {
		return err
	}
	accounts := connector.Accounts{{Name: "twilio", Provider: p}}
	m := connector.NewMetrics(l, "bench")
	srv := &connector.Server{
		Inbox:  &connector.Inbox{Ledger: l, Accounts: accounts, Replies: reply.Default(), Metrics: m, Log: log, Now: time.Now},
		Gate:   &connector.Gate{Ledger: l, Accounts: accounts, Region: "US", Metrics: m, Log: log, Now: time.Now},
		Ledger: l, Keys: connector.NewKeyRing(nil, time.Now, connector.Key{Name: "bench", SHA256: sha256.Sum256([]byte(benchKey)), May: []connector.Right{connector.MayRead}}),
		Public: benchPublic, Metrics: m, Log: log, Now: time.Now,
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	mux.HandleFunc("POST /drop", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
		var v struct {
			Numbers []string `json:"numbers"`
		}
		if json.NewDecoder(r.Body).Decode(&v) != nil {
			w.WriteHeader(400)
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	})
	mux.Handle("/", srv.PublicHandler())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	hs := connector.NewHTTPServer(mux, log)
	go func() { _ = hs.Serve(ln) }()
	fmt.Println(ln.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	return hs.Close()
}

type benchCase struct {
	name    string
	request func(i int) []byte
	status  string
}

func httpRequest(method, path, extra string, body []byte) []byte {
	return fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: sms.example.com\r\n%sContent-Length: %d\r\n\r\n%s", method, path, extra, len(body), body)
}

func signedStop(i int) []byte {
	form := url.Values{
		"ToCountry": {"US"}, "ToState": {"TX"}, "SmsMessageSid": {""}, "NumMedia": {"0"}, "ToCity": {"AUSTIN"}, "FromZip": {"78701"},
		"FromState": {"TX"}, "SmsStatus": {"received"}, "FromCity": {"AUSTIN"}, "Body": {"Stop"}, "FromCountry": {"US"}, "To": {"+15550100000"},
		"ToZip": {""}, "NumSegments": {"1"}, "AccountSid": {benchSID}, "ApiVersion": {"2010-04-01"},
		"From": {phone.FromUint64(12_065_550_000 + uint64(i%(2*benchNumbers))*7).String()}, "MessageSid": {fmt.Sprintf("SM%032x", i)},
	}
	keys := make([]string, 0, len(form))
	for k := range form {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	mac := hmac.New(sha1.New, []byte(benchToken))
	_, _ = io.WriteString(mac, benchPublic+"/webhooks/twilio")
	for _, k := range keys {
		_, _ = io.WriteString(mac, k+form.Get(k))
	}
	sig := base64.StdEncoding.EncodeToString(mac.Sum(nil))
	return httpRequest("POST", "/webhooks/twilio", "Content-Type: application/x-www-form-urlencoded\r\nX-Twilio-Signature: "+sig+"\r\n", []byte(form.Encode()))
}

// load sends the requests over conns connections, closed loop, and returns how long that took.
func load(b *testing.B, addr string, conns int, requests [][]byte, status string) time.Duration {
	b.Helper()
	var next atomic.Int64
	var failed atomic.Pointer[string]
	var wg sync.WaitGroup
	began := time.Now()
	for range conns {
		wg.Go(func() {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				s := err.Error()
				failed.Store(&s)
				return
			}
			defer c.Close()
			r := bufio.NewReader(c)
			for {
				i := int(next.Add(1)) - 1
				if i >= len(requests) || failed.Load() != nil {
					return
				}
				if _, err := c.Write(requests[i]); err != nil {
					s := err.Error()
					failed.Store(&s)
					return
				}
				if err := readResponse(r, status); err != nil {
					s := err.Error()
					failed.Store(&s)
					return
				}
			}
		})
	}
	wg.Wait()
	if p := failed.Load(); p != nil {
		b.Fatal(*p)
	}
	return time.Since(began)
}

// readResponse reads one response with as little work as possible: the client shares the machine with the server.
func readResponse(r *bufio.Reader, status string) error {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.Contains(line, []byte(status)) {
		return fmt.Errorf("want %s, got %q", status, line)
	}
	length := 0
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) <= 2 {
			break
		}
		if v, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			length, err = strconv.Atoi(string(bytes.TrimSpace(v)))
			if err != nil {
				return err
			}
		}
	}
	_, err = r.Discard(length)
	return err
}

// cpuTime returns the CPU time that a process has used.
func cpuTime(pid int) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+2:]))
	user, _ := strconv.Atoi(f[11])
	sys, _ := strconv.Atoi(f[12])
	return time.Duration(user+sys) * 10 * time.Millisecond // clock ticks of 1/100 s
}

// BenchmarkFloors prints, side by side: durable signed ingest against bare HTTP, and a gate decision against a JSON echo.
func BenchmarkFloors(b *testing.B) {
	const rounds, perRound = 5, 20_000
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), benchServerEnv+"="+b.TempDir())
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	}()
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	addr = strings.TrimSpace(addr)

	asked := func(path, extra string) func(int) []byte {
		return func(i int) []byte {
			body := fmt.Appendf(nil, `{"numbers":["+1%d"]}`, 2_065_550_000+uint64(i%(2*benchNumbers))*7)
			return httpRequest("POST", path, "Content-Type: application/json\r\n"+extra, body)
		}
	}
	cases := []benchCase{
		{"GET hello", func(int) []byte { return httpRequest("GET", "/hello", "", nil) }, "200"},
		{"POST, body dropped", func(i int) []byte {
			return bytes.Replace(signedStop(i), []byte("/webhooks/twilio"), []byte("/drop"), 1)
		}, "200"},
		{"signed STOP, durable", signedStop, "200"},
		{"JSON echo", asked("/echo", ""), "200"},
		{"gate decision", asked("/v1/decisions", "Authorization: Bearer "+benchKey+"\r\n"), "200"},
	}
	for _, conns := range []int{64, 256} {
		rate := make([][]float64, len(cases))
		cpu := make([][]float64, len(cases))
		for round := range rounds {
			for i, c := range cases {
				requests := make([][]byte, perRound)
				for k := range requests {
					requests[k] = c.request((conns*rounds+round)*perRound + k) // fresh message ids in each round
				}
				before := cpuTime(cmd.Process.Pid)
				took := load(b, addr, conns, requests, c.status)
				rate[i] = append(rate[i], perRound/took.Seconds())
				cpu[i] = append(cpu[i], float64((cpuTime(cmd.Process.Pid)-before).Microseconds())/perRound)
			}
		}
		fmt.Printf("\n%d connections, %d rounds of %d requests, median [worst]\n%-24s %12s %14s\n", conns, rounds, perRound, "", "requests/s", "CPU µs/request")
		for i, c := range cases {
			fmt.Printf("%-24s %12.0f %14.1f\n", c.name, median(rate[i]), median(cpu[i]))
		}
		ratio := func(name string, a, of int) {
			r, w := ratios(rate[a], rate[of])
			k, kw := ratios(cpu[a], cpu[of])
			fmt.Printf("%-50s %.2f [%.2f] of the rate, %.2f [%.2f] × the CPU\n", name, r, w, k, kw)
			b.ReportMetric(r, fmt.Sprintf("%s_c%d", strings.ReplaceAll(name, " ", "-"), conns))
		}
		ratio("durable signed ingest ÷ hello", 2, 0)
		ratio("durable signed ingest ÷ POST dropped", 2, 1)
		ratio("gate decision ÷ JSON echo", 4, 3)
		ratio("gate decision ÷ hello", 4, 0)
	}
	b.ReportMetric(0, "ns/op")
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

// ratios returns the median of the per-round ratios and the smallest.
func ratios(a, of []float64) (med, worst float64) {
	var r []float64
	for i := range a {
		r = append(r, a[i]/max(of[i], 1e-9))
	}
	return median(r), slices.Min(r)
}
