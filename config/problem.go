package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity says whether heed starts in spite of a problem.
type Severity string

const (
	Error   Severity = "error"   // heed does not start
	Warning Severity = "warning" // heed starts; the operator should know
)

// Problem is one thing that is wrong with a configuration, and where.
//
// Its texts never hold a secret, nor any value that came from the environment or from a file.
type Problem struct {
	File     string   `json:"file"`             // as it was named to Load or Parse
	Line     int      `json:"line,omitempty"`   // from 1; 0 if the problem has no place in the file
	Column   int      `json:"column,omitempty"` // from 1, in characters
	Field    string   `json:"field,omitempty"`  // path of the key, as in sms[0].auth_token
	Reason   string   `json:"reason"`
	Hint     string   `json:"hint,omitempty"` // what to do next
	Severity Severity `json:"severity"`
}

// String returns the problem on one line, and its hint on a second one.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	if p.Field != "" {
		b.WriteString(" " + p.Field)
	}
	b.WriteString(": ")
	if p.Severity == Warning {
		b.WriteString("warning: ")
	}
	b.WriteString(p.Reason)
	if p.Hint != "" {
		b.WriteString("\n  hint: " + p.Hint)
	}
	return b.String()
}

// Problems are all the problems of one configuration. Those that this package returns are in the order of the file.
type Problems []Problem

// Error returns every problem, each as [Problem.String] writes it.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Err returns the problems as an error if heed must not start with them, and nil if there are none but warnings.
func (ps Problems) Err() error {
	if slices.ContainsFunc(ps, func(p Problem) bool { return p.Severity != Warning }) {
		return ps
	}
	return nil
}

// Sort puts the problems into the order of the file. Call it after adding those of other sections.
func (ps Problems) Sort() {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Field, b.Field))
	})
}
