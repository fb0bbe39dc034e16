package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/heed-sms/heed/config"
)

func healthcheckCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask the running daemon whether it is ready (for containers)",
		Long: `Ask the daemon of this configuration, at its admin listener, whether it can acknowledge opt-outs and decide on sends.
The exit code is 0 if it is ready, 1 otherwise. Made for a container's HEALTHCHECK, where there is no curl.`,
		Example: "  heed healthcheck -c /etc/heed/heed.yaml",
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, problems := config.Load(o.config)
			if err := problems.Err(); err != nil {
				return err
			}
			host, port, err := net.SplitHostPort(cfg.Admin.Listen)
			if err != nil {
				return fmt.Errorf("admin.listen: %w", err)
			}
			if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
				host = "127.0.0.1"
			}
			ctx, cancel := context.WithTimeout(c.Context(), 2*time.Second)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
			if err != nil {
				return err
			}
			t := &http.Transport{DisableKeepAlives: true}
			resp, err := t.RoundTrip(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return fmt.Errorf("not ready: HTTP %d", resp.StatusCode)
			}
			return nil
		},
	}
}
