package ledgertest

import "testing"

func model(t *testing.T, s *suite) {}
