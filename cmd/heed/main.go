// Command heed makes an SMS opt-out stick: it takes STOPs from an SMS provider, ticks the opt-out box of every matching
// CRM record, refuses every send to that number from then on, and proves each night that CRM, provider and its own
// ledger agree.
//
// This package is the wiring: commands, configuration to drivers, servers and signals. What heed does is in package
// connector and below; start reading there.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	stop()
	os.Exit(code)
}
