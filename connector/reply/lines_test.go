package reply

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

type object struct{ Text, Verdict, Rule, Keyword string }

func classifyLines(t interface{ Fatalf(string, ...any) }, in io.Reader) (raw []string, objs []object) {
	var out bytes.Buffer
	if err := ClassifyLines(context.Background(), in, &out, Default()); err != nil {
		t.Fatalf("ClassifyLines: %v", err)
	}
	for l := range strings.Lines(out.String()) {
		var o object
		if err := json.Unmarshal([]byte(l), &o); err != nil {
			t.Fatalf("output %q: %v", l, err)
		}
		raw, objs = append(raw, l), append(objs, o)
	}
	return raw, objs
}

func TestLinesComeOutAsJSONInOrderWithFixedKeys(t *testing.T) {
	raw, _ := classifyLines(t, strings.NewReader("STOP\r\n\nsay \"hi\"\\\t\x01\x7f\u2028\nst\xffop\nsee you 👍"))
	want := []string{
		`{"text":"STOP","verdict":"opt_out","rule":"exact_opt_out","keyword":"stop"}` + "\n",
		`{"text":"","verdict":"none","rule":"blank","keyword":""}` + "\n",
		`{"text":"say \"hi\"\\\t\u0001\u007f\u2028","verdict":"none","rule":"none","keyword":""}` + "\n",
		"{\"text\":\"st\uFFFDop\",\"verdict\":\"opt_out\",\"rule\":\"exact_opt_out\",\"keyword\":\"stop\"}\n",
		`{"text":"see you 👍","verdict":"none","rule":"none","keyword":""}` + "\n",
	}
	if strings.Join(raw, "") != strings.Join(want, "") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(raw, ""), strings.Join(want, ""))
	}
}

func TestEveryLineOfAnyBytesGivesOneObject(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOf(rapid.Custom(func(t *rapid.T) []byte {
			return bytes.ReplaceAll(rapid.SliceOf(rapid.Byte()).Draw(t, "line"), []byte{'\n'}, []byte{'x'})
		})).Draw(t, "lines")
		in := append(bytes.Join(lines, []byte{'\n'}), '\n')
		if len(lines) == 0 {
			in = nil
		}
		// One byte at a time and all at once must give the same.
		_, objs := classifyLines(t, iotest.OneByteReader(bytes.NewReader(in)))
		_, again := classifyLines(t, bytes.NewReader(in))
		if len(objs) != len(lines) || len(again) != len(lines) {
			t.Fatalf("%d lines in, %d and %d objects out", len(lines), len(objs), len(again))
		}
		for i, l := range lines {
			l = bytes.TrimSuffix(l, []byte{'\r'})
			r := Default().Classify(string(l))
			want := object{string([]rune(string(l))), string(r.Verdict), r.Rule, r.Keyword}
			if objs[i] != want || again[i] != want {
				t.Fatalf("line %d %q: got %+v and %+v, want %+v", i, l, objs[i], again[i], want)
			}
		}
	})
}

func TestLongLinesKeepTheOrder(t *testing.T) {
	longest := strings.Repeat("a", maxLine)
	_, objs := classifyLines(t, strings.NewReader("STOP\n"+longest+"\n"+longest+"\r\n"+longest+"bc\nSTART\nstop "+longest+longest))
	if len(objs) != 6 {
		t.Fatalf("6 lines in, %d objects out", len(objs))
	}
	for i, want := range []object{
		{"STOP", "opt_out", "exact_opt_out", "stop"}, {longest, "hold", "too_long", ""}, {longest, "hold", "too_long", ""},
		{longest, "hold", "too_long", ""}, {"START", "opt_in", "exact_opt_in", "start"},
	} {
		if objs[i] != want {
			t.Errorf("object %d: %.60q %s %s, want %.20q %s", i, objs[i].Text, objs[i].Verdict, objs[i].Rule, want.Text, want.Rule)
		}
	}
	if n := len(objs[5].Text); n != maxLine {
		t.Errorf("a line of more than 1 MiB comes out with %d bytes", n)
	}
}

func TestVerdictsAreWrittenAsSoonAsNoInputWaits(t *testing.T) {
	in, feed := io.Pipe()
	read, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := ClassifyLines(context.Background(), in, out, Default())
		out.Close()
		done <- err
	}()
	buf := make([]byte, 256)
	for _, text := range []string{"STOP\n", "hello\n"} {
		if _, err := io.WriteString(feed, text); err != nil {
			t.Fatal(err)
		}
		n, err := read.Read(buf)
		if err != nil || !strings.Contains(string(buf[:n]), strings.TrimSpace(text)) {
			t.Fatalf("after %q: %q, %v", text, buf[:n], err)
		}
	}
	feed.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestErrorsOfReaderWriterAndContextEndTheRun(t *testing.T) {
	broken := errors.New("broken")
	var out bytes.Buffer
	err := ClassifyLines(t.Context(), io.MultiReader(strings.NewReader("STOP\n"), iotest.ErrReader(broken)), &out, Default())
	if !errors.Is(err, broken) || !strings.Contains(out.String(), "STOP") {
		t.Errorf("broken reader: %v, wrote %q", err, out.String())
	}
	in, w := io.Pipe()
	w.Close()
	in.Close()
	if err := ClassifyLines(t.Context(), strings.NewReader("STOP\n"), w, Default()); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("broken writer: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := ClassifyLines(ctx, strings.NewReader("STOP\n"), io.Discard, Default()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
