package reply

import (
	"bytes"
	_ "embed"
	"io"
)

//go:embed corpus/replies.tsv
var corpus []byte

// Corpus returns the labelled replies that the rules are measured on: one a line, label, language and text separated
// by tabs. See README.md for how they were made. [Evaluate] reads them.
func Corpus() io.Reader { return bytes.NewReader(corpus) }
