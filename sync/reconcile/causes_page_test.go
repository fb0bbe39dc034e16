package reconcile

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// causesTable is the table of docs/concepts.md.
func causesTable() string {
	var b strings.Builder
	b.WriteString("| cause | means | for example | what heed does |\n|---|---|---|---|\n")
	for _, c := range Causes {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", c.Name, c.Means, c.Example, c.Did)
	}
	return b.String()
}

// The page tells of the causes in the words of the reports. Where it does not, the test prints the table to put there.
func TestThePageHasTheCauses(t *testing.T) {
	page, err := os.ReadFile("../../docs/concepts.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := causesTable(); !strings.Contains(string(page), "\n\n"+want+"\n") {
		t.Errorf("the table of causes in docs/concepts.md must be:\n%s", want)
	}
}
