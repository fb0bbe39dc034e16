package connector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/heed-sms/heed/connector/confirm"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms"
)

// Account is one configured account at an SMS provider.
type Account struct {
	Name     string // as in the configuration; part of the webhook URL
	Provider sms.Provider
	Replies  confirm.Owner // who answers STOP, START and HELP; "" means the provider
}

// Accounts are the configured accounts, in the order of the configuration. The first one is the default for sending.
type Accounts []Account

// Find returns the account with a name; "" means the first.
func (as Accounts) Find(name string) (Account, bool) {
	for _, a := range as {
		if a.Name == name || name == "" {
			return a, true
		}
	}
	return Account{}, false
}

// CRM is one configured CRM.
type CRM struct {
	Name      string
	Directory crm.Directory
}

// eventID names an event of a provider's message, for deduplication.
func eventID(kind, account string, parts ...string) string {
	return kind + "/" + account + "/" + strings.Join(parts, "/")
}

// sleep waits for d or until ctx ends, and reports whether it waited in full.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Supervise runs fn again whenever it panics, and ends when it returns. One broken record must not end all owed work.
func Supervise(ctx context.Context, log *slog.Logger, name string, fn func(context.Context)) {
	for ctx.Err() == nil {
		err := func() (err error) {
			defer func() {
				if p := recover(); p != nil {
					err = fmt.Errorf("panic: %T", p) // the value may carry a number or a text
				}
			}()
			fn(ctx)
			return nil
		}()
		if err == nil {
			return
		}
		log.Error("worker failed and starts again", "worker", name, "error", err)
		if !sleep(ctx, time.Second) {
			return
		}
	}
}

var errNoAccount = errors.New("no such account")
