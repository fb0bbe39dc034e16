package evidence

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/chain"
	"github.com/heed-sms/heed/connector/ledger/local"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms/phone"
)

var (
	ada    = phone.MustParse("+14155550142")
	bob    = phone.MustParse("+12065550177")
	start  = time.Date(2026, 3, 7, 15, 0, 0, 0, time.UTC) // the night after, New York's clocks change
	canary = "CANARY-OF-SOMEBODY-ELSE"
)

func newYork(t testing.TB) *time.Location {
	t.Helper()
	z, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func inbound(n phone.Number, i int, v reply.Verdict, body string) ledger.Event {
	at := start.Add(time.Duration(i) * time.Hour)
	return ledger.Event{Kind: ledger.KindInbound, ID: fmt.Sprint("in/", n, i), At: at, Number: n, Inbound: &ledger.Inbound{Account: "twilio",
		ProviderID: fmt.Sprint("SM", i), From: n.String(), To: "+15550100000", Body: body, Via: ledger.ViaWebhook, Verdict: v, Rule: "exact", Raw: "Body=" + body}}
}

// world is a ledger with two people's events and a report each "night".
func world(t testing.TB) *local.Ledger {
	t.Helper()
	l, err := local.Open(t.TempDir(), local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	add := func(events ...ledger.Event) {
		t.Helper()
		if _, err := l.Append(t.Context(), events...); err != nil {
			t.Fatal(err)
		}
	}
	report := func(i int, kind string) {
		s, err := l.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		at := start.Add(time.Duration(i) * time.Hour)
		add(ledger.Event{Kind: ledger.KindPass, ID: fmt.Sprint("pass/", i), At: at, Pass: &ledger.Pass{ID: fmt.Sprintf("%s-%d", kind, i), Kind: kind,
			StartedAt: at, FinishedAt: at, Head: hex.EncodeToString(s.HeadHash[:]), HeadSeq: s.Head}})
	}
	others := func(i int) {
		for k := range 12 {
			add(inbound(bob, 1000*i+k, reply.None, canary))
		}
	}
	others(1)
	report(1, "nightly") // before Ada's first event
	add(inbound(ada, 2, reply.None, "who is this?"))
	others(2)
	report(3, "nightly")
	add(inbound(ada, 4, reply.OptOut, "please <b>stop</b> texting “me” \\ 🛑"))
	key := crm.Key{Object: "Contact", ID: "003A"}
	add(ledger.Event{Kind: ledger.KindWritten, At: start.Add(5 * time.Hour), Number: ada, Written: &ledger.Written{UpTo: 99, Want: true, Results: []ledger.WriteResult{
		{CRM: "salesforce", Key: key, OptedOut: true}, {CRM: "salesforce", Key: crm.Key{Object: "Lead", ID: "00QB"}, OptedOut: true, Class: "refused", Text: "a validation rule"}}}})
	others(3)
	report(6, "incremental")
	m := ledger.Message{ID: "msg-1", To: ada, Body: "Sale!", Account: "twilio", Caller: "workflow", CreatedAt: start.Add(7 * time.Hour)}
	if _, _, err := l.Open(t.Context(), m, consent.Decision{Verdict: consent.Allow, Reason: consent.OK}); err != nil {
		t.Fatal(err)
	}
	report(24, "manual")
	others(4)
	report(48, "nightly")
	add(ledger.Event{Kind: ledger.KindAct, At: start.Add(50 * time.Hour), Number: ada, Act: &ledger.Act{Who: "ann", Via: "command line", What: "evidence", Why: "case 12"}})
	return l
}

func options(t testing.TB) Options {
	return Options{Number: ada, At: start.Add(50 * time.Hour), By: "ann", Why: "case 12", Heed: "test", Zone: newYork(t)}
}

func write(t testing.TB, l Ledger) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := Write(t.Context(), &b, l, options(t)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func verify(b []byte, known ...Known) (Report, error) {
	return Verify(bytes.NewReader(b), int64(len(b)), known...)
}

// unzip returns the files of a packet.
func unzip(t testing.TB, b []byte) map[string]string {
	t.Helper()
	zr, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, f := range zr.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		c, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[f.Name] = string(c)
	}
	return files
}

// rezip packs files the way heed does, with right checksums: what somebody does who knows what he is doing.
func rezip(t testing.TB, files map[string]string, order ...string) []byte {
	t.Helper()
	if order == nil {
		order = names
	}
	var b bytes.Buffer
	zw := zip.NewWriter(&b)
	for _, name := range order {
		w, err := zw.CreateHeader(head(name))
		if err == nil {
			_, err = io.WriteString(w, files[name])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestAPacketHoldsTheNumbersEventsVerbatimAndNobodyElses(t *testing.T) {
	l := world(t)
	b := write(t, l)
	rep, err := verify(b)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte(canary)) || bytes.Contains(b, []byte(bob.String())) {
		t.Error("somebody else's data is in the packet")
	}
	files := unzip(t, b)
	var want strings.Builder
	var seqs []uint64
	for e, err := range l.History(t.Context(), ada) {
		if err != nil {
			t.Fatal(err)
		}
		raw, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		want.Write(append(raw, '\n'))
		seqs = append(seqs, e.Seq)
	}
	if files[recordsName] != want.String() {
		t.Errorf("records are\n%s\nwant\n%s", files[recordsName], want.String())
	}
	head, err := l.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if pk := rep.Packet; pk.Records != 5 || pk.First != seqs[0] || pk.Last != seqs[4] || pk.Head != head.Head || pk.HeadHash != Hash(head.HeadHash) || pk.LeftOut != 0 {
		t.Errorf("packet %+v", pk)
	}
	var kinds []string
	for _, a := range rep.Anchors {
		kinds = append(kinds, a.Kind+" "+a.Report)
	}
	if got := strings.Join(kinds, ", "); got != "nightly nightly-3, manual manual-24, nightly nightly-48, export " {
		t.Errorf("anchors %s", got)
	}
	if again := write(t, l); !bytes.Equal(again, b) {
		t.Error("the same input gave other bytes")
	}
}

func TestTheSummarySaysWhatHappenedAndRunsNothing(t *testing.T) {
	s := unzip(t, write(t, world(t)))[summaryName]
	for _, want := range []string{
		"Opted out", "please &lt;b&gt;stop&lt;/b&gt; texting “me”",
		"2026-03-07 14:00:00 EST", "2026-03-07 19:00:00 UTC", // the STOP
		"2026-03-09 13:00:00 EDT", // the export, after the clocks changed
		"salesforce Contact 003A", "ticked", "salesforce Lead 00QB", "a validation rule",
		"refused, opted out", "Sale!", "ann", "case 12", "nightly report nightly-48", "manual report manual-24", "@media print",
	} {
		if !strings.Contains(s, want) {
			t.Errorf("the summary does not say %q", want)
		}
	}
	for _, bad := range []string{"<script", "http://", "https://", "<b>stop", "<link", "<img"} {
		if strings.Contains(s, bad) {
			t.Errorf("the summary contains %q", bad)
		}
	}
	if t.Failed() {
		t.Log(s)
	}
}

// An event about the provider's own list says in its headline whether anybody was told.
func TestTheHeadlineOfAListsEventIsItsOutcome(t *testing.T) {
	taken, refused := ledger.ToldResult{Account: "main"}, ledger.ToldResult{Account: "second", Class: "rejected", Text: "no"}
	for _, c := range []struct {
		told       ledger.Told
		what, note string
	}{
		{ledger.Told{Want: true}, "No list of the provider's was told", "no account has one that heed may write"},
		{ledger.Told{}, "No list of the provider's was told", "no account has one that heed may write, or only the recipient's START takes the number off it"},
		{ledger.Told{Want: true, Results: []ledger.ToldResult{taken}}, "The provider's own list was told", "main: done"},
		{ledger.Told{Want: true, Results: []ledger.ToldResult{refused}}, "The provider's own list could not be told", "second: rejected no"},
		{ledger.Told{Want: true, Results: []ledger.ToldResult{refused, taken}}, "Not every list of the provider's could be told", "second: rejected no|main: done"},
	} {
		x := describe(ledger.Event{Kind: ledger.KindTold, Number: ada, Told: &c.told})
		if notes := strings.Join(x.Notes, "|"); x.What != c.what || notes != c.note {
			t.Errorf("%+v: %q %q, want %q %q", c.told, x.What, notes, c.what, c.note)
		}
	}
}

// Every byte of a packet counts. HEED_EVIDENCE_FLIP=all tries each one, otherwise a sample.
func TestAFlippedByteIsRefusedAndNamed(t *testing.T) {
	b := write(t, world(t))
	step := 23
	if os.Getenv("HEED_EVIDENCE_FLIP") == "all" {
		step = 1
	}
	table := bytes.Index(b, []byte("PK\x01\x02"))
	named := map[string]int{}
	for i := 0; i < len(b); i++ {
		if i%step != 0 && i < table {
			continue
		}
		for _, bit := range []byte{1 << (i % 8), 0x20} { // 0x20 changes the case of a letter
			b[i] ^= bit
			_, err := verify(b)
			var bad *BadPacketError
			if !errors.As(err, &bad) || bad.Error() == "" {
				t.Fatalf("byte %d of %d, bit %#x: %v", i, len(b), bit, err)
			}
			if i < table && bad.File != "" {
				named[bad.File]++
			}
			b[i] ^= bit
		}
	}
	for _, name := range names {
		if named[name] == 0 {
			t.Errorf("no flipped byte was found in %s: %v", name, named)
		}
	}
	// Damage that leaves no JSON is told as what it is, and not as a mistake of syntax.
	for _, quote := range []string{`"head_seq"`, `"prev":`, `"kind"`} {
		at := bytes.Index(b, []byte(quote))
		if quote == `"kind"` { // records have the word too; the last one is an anchor's
			at = bytes.LastIndex(b, []byte(quote))
		}
		b[at] ^= 1
		if _, err := verify(b); err == nil || !strings.HasPrefix(err.Error(), "the packet was changed: ") {
			t.Errorf("%s was flipped: %v", quote, err)
		}
		b[at] ^= 1
	}
	if _, err := verify(b); err != nil {
		t.Fatal(err)
	}
	for _, cut := range []int{0, 1, len(b) / 2, len(b) - 1} {
		if _, err := verify(b[:cut]); err == nil {
			t.Errorf("cut to %d bytes: accepted", cut)
		}
	}
	for _, longer := range [][]byte{append(slices.Clone(b), 0), append([]byte("x"), b...)} {
		if _, err := verify(longer); err == nil {
			t.Error("with a byte more: accepted")
		}
	}
}

// A forger can make the archive sound again. Each of these changes something that it says.
func TestAForgedPacketIsRefused(t *testing.T) {
	files := unzip(t, write(t, world(t)))
	lines := func(name string) []string { return strings.SplitAfter(strings.TrimSuffix(files[name], "\n"), "\n") }
	with := func(name, content string) map[string]string {
		c := maps.Clone(files)
		c[name] = content
		return c
	}
	edited := strings.Replace(files[recordsName], "texting", "calling", 1)
	// The forger computes the digest of the edited record anew, too.
	redigested := func() map[string]string {
		c := with(recordsName, edited)
		var proof strings.Builder
		records := strings.Split(edited, "\n")
		for _, raw := range lines(proofName) {
			var s step
			if err := json.Unmarshal([]byte(raw), &s); err != nil {
				t.Fatal(err)
			}
			if s.Record > 0 {
				nonce, _ := hex.DecodeString(s.Nonce)
				s.Digest = Hash(chain.Digest(chain.Nonce(nonce), []byte(records[s.Record-1])))
			}
			_ = line(&proof, s)
		}
		c[proofName] = proof.String()
		return c
	}
	records, proof := lines(recordsName), lines(proofName)
	for what, c := range map[string]struct {
		files map[string]string
		says  string
	}{
		"an edited record":              {with(recordsName, edited), "records.jsonl: record 2 (event 28): it is not what was recorded"},
		"… and its digest":              {redigested(), "the chain is broken"},
		"a record less":                 {with(recordsName, strings.Join(records[:4], "")+"\n"), "record 5"},
		"a record more":                 {with(recordsName, files[recordsName]+records[0]), "says nothing about it"},
		"two records swapped":           {with(recordsName, records[1]+records[0]+strings.Join(records[2:], "")+"\n"), "record 1"},
		"a link less":                   {with(proofName, strings.Join(slices.Delete(slices.Clone(proof), 3, 4), "")+"\n"), "proof.jsonl"},
		"the last link less":            {with(proofName, strings.Join(proof[:len(proof)-1], "")), "says nothing about it"},
		"no link":                       {with(proofName, ""), "says nothing about it"},
		"the first link less":           {with(proofName, strings.Join(proof[1:], "")+"\n"), "must begin"},
		"an empty packet":               {map[string]string{packetName: `{"layout":1}`, anchorsName: "[]"}, "no record"},
		"another anchor's hash":         {with(anchorsName, regexp.MustCompile(`"hash":"[0-9a-f]{8}`).ReplaceAllString(files[anchorsName], `"hash":"00000000`)), "anchors.json: event 26"},
		"no anchors":                    {with(anchorsName, "[\n\n]\n"), "end at the time of export is missing"},
		"another number":                {with(packetName, strings.Replace(files[packetName], "0142", "0143", 1)), "another number"},
		"another reason":                {with(packetName, strings.Replace(files[packetName], "case 12", "case 13", 1)), "summary.html"},
		"another end":                   {with(packetName, strings.Replace(files[packetName], `"head_seq": `, `"head_seq": 1`, 1)), "packet.json"},
		"another count":                 {with(packetName, strings.Replace(files[packetName], `"records": 5`, `"records": 4`, 1)), "packet.json"},
		"another zone":                  {with(packetName, strings.Replace(files[packetName], `"seconds": -18000`, `"seconds": -18060`, 1)), "summary.html"},
		"a field more":                  {with(packetName, strings.Replace(files[packetName], "{", `{"x":1,`, 1)), "packet.json"},
		"a layout of the future":        {with(packetName, strings.Replace(files[packetName], `"layout": 1`, `"layout": 2`, 1)), "layout 2"},
		"a summary that says otherwise": {with(summaryName, strings.Replace(files[summaryName], "Opted out", "Opted in", 1)), "summary.html"},
		"a README that says otherwise":  {with(readmeName, strings.Replace(files[readmeName], "WRONG", "RIGHT", 1)), "README.txt"},
		"a proof that is no JSON":       {with(proofName, "hello\n"), "proof.jsonl: line 1"},
		"a proof with a long line":      {with(proofName, strings.Repeat(" ", 5000)+"\n"), "longer than"},
		"an event 0": {func() map[string]string {
			c := with(packetName, regexp.MustCompile(`"first_seq": \d+`).ReplaceAllString(files[packetName], `"first_seq": 0`))
			c[proofName] = regexp.MustCompile(`^{"seq":\d+`).ReplaceAllString(files[proofName], `{"seq":0`)
			return c
		}(), "must begin"},
	} {
		_, err := verify(rezip(t, c.files))
		var bad *BadPacketError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want it to say %q", what, err, c.says)
		}
	}
	for what, order := range map[string][]string{"a file less": names[:5], "a file twice": append([]string{readmeName}, names...), "another order": {names[1], names[0], names[2], names[3], names[4], names[5]}} {
		if _, err := verify(rezip(t, files, order...)); err == nil || !strings.Contains(err.Error(), "exactly") {
			t.Errorf("%s: %v", what, err)
		}
	}
	var squeezed bytes.Buffer
	zw := zip.NewWriter(&squeezed)
	for _, name := range names {
		f, err := zw.Create(name) // compressed, so that little can become much
		if err == nil {
			_, err = io.WriteString(f, files[name])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := verify(squeezed.Bytes()); err == nil || !strings.Contains(err.Error(), "it is compressed") {
		t.Errorf("compressed: %v", err)
	}
	// The control: packed by the test and unchanged, it is accepted.
	if _, err := verify(rezip(t, files)); err != nil {
		t.Fatal(err)
	}
}

func TestAnAnchorFromElsewhereProvesWhatCameBefore(t *testing.T) {
	l := world(t)
	b := write(t, l)
	rep, err := verify(b)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{1, 4, 4, 5} {
		a := rep.Anchors[i]
		for _, k := range []Known{{a.Seq, a.Hash}, {0, a.Hash}} {
			got, err := verify(b, k)
			if err != nil || len(got.Vouched) != 1 || got.Vouched[0].Records != want || got.Vouched[0].Anchor.Report != a.Report {
				t.Errorf("%s: %+v, %v", a.Report, got.Vouched, err)
			}
		}
		if _, err := verify(b, Known{a.Seq + 1, a.Hash}); err == nil {
			t.Errorf("%s: accepted at another place", a.Report)
		}
	}
	// The same events in another ledger: a packet that is sound in itself, and not what the report saw.
	if _, err := verify(write(t, world(t)), Known{0, rep.Anchors[0].Hash}); err == nil || !strings.Contains(err.Error(), "NOT PROVEN") {
		t.Errorf("another ledger's packet: %v", err)
	}
	// An anchor that the packet has nothing of is only called a sign of change where it is one.
	first, head := rep.Packet.First, rep.Packet.Head
	var steps []uint64
	for l := range strings.Lines(unzip(t, b)[proofName]) {
		var s step
		if err := json.Unmarshal([]byte(l), &s); err != nil {
			t.Fatal(err)
		}
		steps = append(steps, s.Seq)
	}
	between := first + 1
	for slices.Contains(steps, between) {
		between++
	}
	for _, c := range []struct {
		seq        uint64
		says       string
		accusation bool
	}{
		{head + 25, fmt.Sprintf("anchor %d is newer than this packet, which ends at %d: export a new one", head+25, head), false},
		{first - 1, fmt.Sprintf("anchor %d is older than the number's first event (%d): it can prove nothing here", first-1, first), false},
		{between, fmt.Sprintf("event %d is no link of this packet", between), false},
		{first, "the ledger was changed", true},
		{rep.Anchors[1].Seq, "the ledger was changed", true},
		{head, "the ledger was changed", true},
	} {
		_, err := verify(b, Known{c.seq, Hash{1}})
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "was changed") != c.accusation {
			t.Errorf("anchor %d of %d to %d: %v, want %q", c.seq, first, head, err, c.says)
		}
	}
	for _, s := range []string{"", "12", "0:" + rep.Anchors[0].Hash.String(), "x:" + rep.Anchors[0].Hash.String(), rep.Anchors[0].Hash.String() + "0", "1:"} {
		if k, err := ParseKnown(s); err == nil {
			t.Errorf("%q is read as %+v", s, k)
		}
	}
	if k, err := ParseKnown("12:" + strings.ToUpper(rep.Anchors[0].Hash.String())); err != nil || k.Seq != 12 || k.Hash != rep.Anchors[0].Hash {
		t.Errorf("%+v %v", k, err)
	}
}

// The README's commands, as they stand there.
func TestThePacketIsCheckedByHandAsItsReadmeSays(t *testing.T) {
	for _, tool := range []string{"bash", "jq", "xxd", "sha256sum"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	var script strings.Builder
	for l := range strings.Lines(readme) {
		if strings.HasPrefix(l, "    ") {
			script.WriteString(l)
		}
	}
	byHand := func(files map[string]string) string {
		t.Helper()
		dir := t.TempDir()
		for name, content := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.CommandContext(t.Context(), "bash", "-c", script.String())
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	b := write(t, world(t))
	files := unzip(t, b)
	rep, err := verify(b)
	if err != nil {
		t.Fatal(err)
	}
	if out := byHand(files); strings.Contains(out, "WRONG") || strings.Count(out, "\n") != len(rep.Anchors) || !strings.Contains(out, rep.Packet.HeadHash.String()) {
		t.Fatalf("a sound packet: %s", out)
	}
	for what, c := range map[string][3]string{
		"a record":      {recordsName, "texting", "calling"},
		"a digest":      {proofName, `"digest":"`, `"digest":"0`},
		"a link":        {proofName, `"seq":28,`, `"seq":29,`},
		"an anchor":     {anchorsName, `"hash":"`, `"hash":"0`},
		"the last line": {recordsName, files[recordsName][strings.LastIndex(strings.TrimSuffix(files[recordsName], "\n"), "\n")+1:], ""},
	} {
		changed := maps.Clone(files)
		if changed[c[0]] = strings.Replace(files[c[0]], c[1], c[2], 1); changed[c[0]] == files[c[0]] {
			t.Fatalf("%s: nothing to change", what)
		}
		if out := byHand(changed); !strings.Contains(out, "WRONG") {
			t.Errorf("%s was changed and nothing is wrong: %s", what, out)
		}
	}
}

// A packet made by an earlier build stays good. If this fails, something that a packet's bytes depend on was changed
// (README, summary, field names, or Go's zip and HTML writers): give it a new layout and keep the old one readable.
func TestAPacketOfLayout1StaysGood(t *testing.T) {
	path := filepath.Join("testdata", "layout-1.zip")
	if os.Getenv("HEED_EVIDENCE_GOLDEN") == "write" {
		if err := os.WriteFile(path, write(t, world(t)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if rep, err := verify(b); err != nil || rep.Packet.Records != 5 {
		t.Fatalf("%+v, %v", rep.Packet, err)
	}
}

// fake is a ledger that computes its events instead of keeping them.
type fake struct {
	n       int // events, every one of ada's
	text    string
	passes  []ledger.Pass
	history int // events that History has before the first one that can be proven
	failAt  int
}

func (f fake) Prove(context.Context, phone.Number, []uint64) iter.Seq2[ledger.Proven, error] {
	return func(yield func(ledger.Proven, error) bool) {
		var tip chain.Tip
		for i := range f.n {
			if f.failAt > 0 && i == f.failAt {
				yield(ledger.Proven{}, errors.New("the disk is gone"))
				return
			}
			b, err := inbound(ada, i, reply.None, f.text).Encode()
			l := tip.Next(chain.Digest(chain.Nonce{}, b))
			tip.Add(l.Hash())
			if !yield(ledger.Proven{Link: l, Own: true, Payload: b}, err) {
				return
			}
		}
	}
}

func (f fake) History(context.Context, phone.Number) iter.Seq2[ledger.Event, error] {
	return func(yield func(ledger.Event, error) bool) {
		for i := range f.history {
			if !yield(ledger.Event{Seq: uint64(i) * 0}, nil) {
				return
			}
		}
		if f.n > 0 {
			yield(ledger.Event{Seq: 1}, nil)
		}
	}
}

func (f fake) Reports(context.Context) iter.Seq2[ledger.Pass, error] {
	return func(yield func(ledger.Pass, error) bool) {
		for _, p := range f.passes {
			if !yield(p, nil) {
				return
			}
		}
	}
}

func TestWhatCannotBeProvenIsSaid(t *testing.T) {
	var b bytes.Buffer
	if _, err := Write(t.Context(), &b, fake{}, options(t)); !errors.Is(err, ledger.ErrNotFound) || b.Len() > 0 {
		t.Errorf("an unknown number: %v, %d bytes", err, b.Len())
	}
	if _, err := Write(t.Context(), &b, fake{history: 2}, options(t)); !errors.Is(err, ErrUnprovable) || b.Len() > 0 {
		t.Errorf("nothing can be proven: %v, %d bytes", err, b.Len())
	}
	if pk, err := Write(t.Context(), &b, fake{history: 2, n: 3}, options(t)); err != nil || pk.LeftOut != 2 {
		t.Errorf("some cannot be proven: %+v, %v", pk, err)
	}
	if rep, err := verify(b.Bytes()); err != nil || rep.Packet.LeftOut != 2 || !strings.Contains(unzip(t, b.Bytes())[summaryName], "2 earlier events") {
		t.Errorf("%+v, %v", rep.Packet, err)
	}
	if _, err := Write(t.Context(), io.Discard, fake{n: 9, failAt: 5}, options(t)); err == nil || !strings.Contains(err.Error(), "the disk is gone") {
		t.Errorf("a ledger that fails: %v", err)
	}
	lying := fake{n: 3, passes: []ledger.Pass{{ID: "nightly-9", Kind: "nightly", StartedAt: start, FinishedAt: start, HeadSeq: 2, Head: strings.Repeat("ab", 32)}}}
	if _, err := Write(t.Context(), io.Discard, lying, options(t)); err == nil || !strings.Contains(err.Error(), "nightly-9") {
		t.Errorf("a report that is not the ledger's: %v", err)
	}
}

// measured forces the garbage out now and then and keeps the largest heap.
type measured struct {
	w       io.Writer
	n, next int
	max     uint64
}

func (m *measured) Write(b []byte) (int, error) {
	if m.n += len(b); m.n >= m.next {
		m.next += 4 << 20
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		m.max = max(m.max, s.HeapAlloc)
	}
	return m.w.Write(b)
}

// HEED_EVIDENCE_EVENTS=100000 tries that many; the bound is the same.
func TestMemoryDoesNotGrowWithTheNumbersEvents(t *testing.T) {
	n := 10_000
	if s := os.Getenv("HEED_EVIDENCE_EVENTS"); s != "" {
		if _, err := fmt.Sscan(s, &n); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "packet.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	m := &measured{w: f}
	began := time.Now()
	if _, err := Write(t.Context(), m, fake{n: n, text: strings.Repeat("a long text ", 60)}, options(t)); err != nil {
		t.Fatal(err)
	}
	written := time.Since(began)
	if grew := int64(m.max) - int64(before.HeapAlloc); m.n < 1000*n || grew > 4<<20 {
		t.Errorf("a packet of %d bytes took %d bytes of memory", m.n, grew)
	}
	r := &readMeasured{r: f}
	began = time.Now()
	if rep, err := Verify(r, int64(m.n)); err != nil || rep.Packet.Records != n {
		t.Fatalf("%+v, %v", rep.Packet, err)
	}
	if grew := int64(r.max) - int64(before.HeapAlloc); grew > 4<<20 {
		t.Errorf("checking a packet of %d bytes took %d bytes of memory", m.n, grew)
	}
	t.Logf("%d events, %d bytes: written in %v, checked in %v", n, m.n, written, time.Since(began))
}

type readMeasured struct {
	r   io.ReaderAt
	m   measured
	max uint64
}

func (r *readMeasured) ReadAt(b []byte, at int64) (int, error) {
	r.m.w = io.Discard
	_, _ = r.m.Write(b)
	r.max = max(r.max, r.m.max)
	return r.r.ReadAt(b, at)
}

func FuzzVerify(f *testing.F) {
	b := write(f, world(f))
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Fuzz(func(t *testing.T, c []byte) {
		rep, err := verify(c)
		if err == nil && !bytes.Equal(b, c) && rep.Packet.Records == 0 {
			t.Error("a packet without records was accepted")
		}
	})
}
