package smstest

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/heed-sms/heed/sms"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemoryConforms(t *testing.T) {
	signer := New()
	Run(t, Harness{
		Open: func(t *testing.T, s Scenario) Service {
			m := New()
			reached := make(chan struct{})
			unknown := &sms.Error{Class: sms.Unknown}
			fail := func(err error) {
				m.FailNext(err)
				m.FailConsents(err)
			}
			switch s {
			case OptedOut:
				m.OptOut(Number)
			case Throttles:
				fail(&sms.Error{Class: sms.Throttled, RetryAfter: time.Second})
			case RefusesCredentials:
				fail(&sms.Error{Class: sms.Auth})
				m.FailReads(&sms.Error{Class: sms.Auth})
			case Rejects:
				fail(&sms.Error{Class: sms.Rejected})
			case Hangs:
				hold := m.HoldAnswers()
				go func() {
					<-hold.Waiting
					close(reached)
				}()
			case Resets, HangsUp:
				m.LoseNextAnswers(1)
				m.FailConsents(unknown)
			case RefusesOne:
				m.RefuseConsents(Number, &sms.Error{Class: sms.Rejected})
			case HasNoList:
				m.FailConsents(&sms.Error{Class: sms.Rejected, Err: sms.ErrNoList})
			case LogNeverEnds, LogAnswersHTML, Unreachable:
				m.FailReads(errors.New(string(s)))
				fail(unknown)
			case Accepts:
			default:
				m.FailReads(errors.New(string(s)))
				fail(unknown)
			}
			return Service{Provider: m, Sends: m.Attempts, Reached: reached}
		},
		Inbound: func(in sms.Inbound) sms.Webhook { return signer.Sign(in) },
		Status:  func(st sms.Status) sms.Webhook { return signer.Sign(st) },
		Secrets: []string{memorySecret},
	})
}

func TestMemoryKeepsWhatItTook(t *testing.T) {
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	m := New()
	m.Now = func() time.Time { return now }
	webhook := m.Text(Number, Sender, "Stop", sms.FlagStop)
	events, err := m.Webhook(webhook)
	if err != nil {
		t.Fatal(err)
	}
	in := events[0].(sms.Inbound)
	if in.Flag != sms.FlagStop || !in.At.IsZero() {
		t.Errorf("the webhook says %+v", in)
	}
	logged, err := m.FindInbound(t.Context(), in.ProviderID)
	if err != nil || !logged.At.Equal(now) || logged.Flag != sms.FlagNone {
		t.Errorf("the log says %+v, %v", logged, err)
	}
	m.LoseNextAnswers(1)
	if _, err := m.Send(t.Context(), sms.Message{To: Number, Body: Text}); sms.ClassOf(err) != sms.Unknown {
		t.Errorf("a lost answer gives %v", err)
	}
	m.Report(m.Sent()[0].ProviderID, sms.DeliveryFailed, "opted_out", true)
	for _, tt := range []struct {
		since, until time.Time
		want         int
	}{{now, now.Add(1), 1}, {now.Add(-1), now, 0}, {now.Add(1), now.Add(2), 0}} {
		if n, err := drain(m.Inbound(t.Context(), tt.since, tt.until)); n != tt.want || err != nil {
			t.Errorf("inbound [%v, %v): %d, %v; want %d", tt.since, tt.until, n, err, tt.want)
		}
		n := 0
		for o, err := range m.Outbound(t.Context(), tt.since, tt.until) {
			if n++; err != nil || !o.OptedOut || o.Body != Text {
				t.Errorf("got %+v, %v", o, err)
			}
		}
		if n != tt.want {
			t.Errorf("outbound [%v, %v): %d, want %d", tt.since, tt.until, n, tt.want)
		}
	}
}

func TestMemoryKeepsAnOptOutList(t *testing.T) {
	m := New()
	set := func(optedOut bool) error {
		return m.SetOptOuts(t.Context(), []sms.Consent{{Number: Number, OptedOut: optedOut, ID: "1"}})[0]
	}
	send := func() sms.Class {
		if _, err := m.Send(t.Context(), sms.Message{To: Number, Body: Text}); err != nil {
			return sms.ClassOf(err)
		}
		return ""
	}
	if err := set(true); err != nil || send() != sms.OptedOut {
		t.Errorf("an opt-out gives %v and does not block", err)
	}
	m.RefuseConsents(Number, &sms.Error{Class: sms.Rejected})
	if err := set(false); sms.ClassOf(err) != sms.Rejected || send() != sms.OptedOut {
		t.Errorf("a refused opt-in gives %v or lifts the block", err)
	}
	m.RefuseConsents(Number, nil)
	if err := set(false); err != nil || send() != "" {
		t.Errorf("an opt-in gives %v and does not lift the block", err)
	}
	if got := m.Consents(); len(got) != 2 || !got[0].OptedOut || got[1].OptedOut {
		t.Errorf("kept %+v", got)
	}
}

func TestMemoryHoldsSends(t *testing.T) {
	m := New()
	hold := m.HoldRequests()
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 2)
	send := func(ctx context.Context) {
		_, err := m.Send(ctx, sms.Message{To: Number, Body: Text})
		result <- err
	}
	go send(ctx)
	<-hold.Waiting
	cancel()
	if err := <-result; sms.ClassOf(err) != sms.Throttled || !errors.Is(err, context.Canceled) {
		t.Errorf("a send that was given up while held: %v", err)
	}
	go send(t.Context())
	<-hold.Waiting
	if n := len(m.Sent()); n != 0 {
		t.Errorf("%d messages were taken while held", n)
	}
	hold.Release()
	if err := <-result; err != nil || len(m.Sent()) != 1 || m.Attempts() != 2 {
		t.Errorf("after the release: %v, %d sent, %d attempts", err, len(m.Sent()), m.Attempts())
	}
}
