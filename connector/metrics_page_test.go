package connector

import (
	"context"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/heed-sms/heed/connector/ledger"
)

// counted is a ledger that has something of everything to count.
type counted struct{ ledger.Ledger }

func (counted) Health() error { return nil }

func (counted) Stats(context.Context) (ledger.Stats, error) {
	return ledger.Stats{Numbers: map[string]int{"opted_out": 1}, Messages: map[ledger.Status]uint64{ledger.StatusSent: 1}}, nil
}

var (
	metricDesc = regexp.MustCompile(`fqName: "([^"]+)".*constLabels: \{([^}]*)\}, variableLabels: \{([^}]*)\}`)
	metricRow  = regexp.MustCompile("(?m)^\\| `(heed_[a-z_]+)` \\| ([a-z]+) \\| ([^|]*) \\| [^|]+ \\| [^|]+ \\| [^|]+ \\|$")
	quoted     = regexp.MustCompile("`([a-z_]+)`")
)

// docs/metrics.md has a row for each metric that the program registers, with its type and labels, and for no other.
func TestEveryMetricIsOnThePage(t *testing.T) {
	page, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{} // name → type, labels
	for _, row := range metricRow.FindAllStringSubmatch(string(page), -1) {
		if _, twice := documented[row[1]]; twice {
			t.Errorf("%s has two rows", row[1])
		}
		var labels []string
		for _, l := range quoted.FindAllStringSubmatch(row[3], -1) {
			labels = append(labels, l[1])
		}
		slices.Sort(labels)
		documented[row[1]] = row[2] + " " + strings.Join(labels, ",")
	}

	m := NewMetrics(counted{}, "test")
	for _, v := range []*prometheus.CounterVec{m.decisions, m.sends, m.writes, m.webhooks, m.passes} {
		v.WithLabelValues("a", "b")
	}
	m.inbound.WithLabelValues("a", "b", "c")
	m.throttled.WithLabelValues("a")
	m.toAnswer.WithLabelValues("a")
	m.lastPass.WithLabelValues("a")
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	registered := map[string]string{}
	ch := make(chan *prometheus.Desc)
	go func() { m.registry.Describe(ch); close(ch) }()
	for d := range ch {
		f := metricDesc.FindStringSubmatch(d.String())
		if f == nil {
			t.Fatalf("%s is not in the form that this test reads", d)
		}
		if !strings.HasPrefix(f[1], "heed_") {
			continue // Go's and the process's
		}
		labels := strings.FieldsFunc(f[3], func(r rune) bool { return r == ',' })
		if name, _, ok := strings.Cut(f[2], "="); ok {
			labels = append(labels, name)
		}
		slices.Sort(labels)
		kind := "of a type that this test does not make: give it a value above,"
		for _, fam := range families {
			if fam.GetName() == f[1] {
				kind = strings.ToLower(fam.GetType().String())
			}
		}
		registered[f[1]] = kind + " " + strings.Join(labels, ",")
	}
	if len(registered) < 20 {
		t.Fatalf("only %d metrics are registered: %v", len(registered), registered)
	}
	for _, name := range slices.Sorted(maps.Keys(registered)) {
		switch want := registered[name]; {
		case documented[name] == "":
			t.Errorf("%s (%s) is not in docs/metrics.md", name, want)
		case documented[name] != want:
			t.Errorf("%s is %q in docs/metrics.md and %q in the program", name, documented[name], want)
		}
		delete(documented, name)
	}
	for name := range documented {
		t.Errorf("docs/metrics.md tells of %s, which does not exist", name)
	}
}

// No alarm waits for a metric that does not exist.
func TestEveryAlarmUsesMetricsThatExist(t *testing.T) {
	rules, err := os.ReadFile("../deploy/prometheus/heed.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../docs/metrics.md") // equal to the program, by the test above
	if err != nil {
		t.Fatal(err)
	}
	used := regexp.MustCompile(`\bheed_[a-z_]+`).FindAllString(string(rules), -1)
	if len(used) < 10 {
		t.Fatalf("only %d metrics in the rules", len(used))
	}
	for _, name := range used {
		if name = strings.TrimSuffix(name, "_bucket"); !strings.Contains(string(page), "| `"+name+"` |") {
			t.Errorf("an alarm uses %s, which does not exist", name)
		}
	}
	operations, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(string(rules), -1) {
		if !strings.Contains(string(operations), "\n### "+a[1]+"\n") || !strings.Contains(string(rules), "operations.md#"+strings.ToLower(a[1])+"\n") {
			t.Errorf("the alarm %s has no section in docs/operations.md, or does not name it", a[1])
		}
	}
}
