package reply

import (
	"bufio"
	"bytes"
	"fmt"
	"go/format"
	"io"
	"math"
	"math/bits"
	"os"
	"slices"
	"sort"
	"strings"
	"testing"
)

// example is a labelled reply as the model sees it.
type example struct {
	text      string
	wants     bool // to stop
	sentences [][]uint16
	reached   bool // no pattern has an opinion: the model decides
}

// examples are the development halves of the corpora, unclear lines left out.
func examples(t *testing.T) (out []example) {
	t.Helper()
	c := Default()
	seen := map[string]bool{}
	further, err := os.Open("corpus/training.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer further.Close()
	for n, r := range []io.Reader{Corpus(), FreshCorpus(), further} {
		for sc := bufio.NewScanner(r); sc.Scan(); {
			f := strings.SplitN(sc.Text(), "\t", 3)
			if n < 2 && HeldOut(f[2]) || f[0] != "opt_out" && f[0] != "none" || seen[f[2]] {
				continue
			}
			seen[f[2]] = true
			x := example{text: f[2], wants: f[0] == "opt_out"}
			x.sentences = sentences(c, f[2])
			x.reached = unknown(c, f[2])
			if len(x.sentences) > 0 {
				out = append(out, x)
			}
		}
	}
	return out
}

// sentences returns the vocabulary numbers of a text's words, sentence by sentence.
func sentences(c *Classifier, text string) (out [][]uint16) {
	var m message
	m.fold(text)
	for i := range m.tok {
		if i == 0 || m.tok[i].flags&afterBreak != 0 {
			out = append(out, nil)
		}
		out[len(out)-1] = append(out[len(out)-1], c.word(m.word(i), &m.tok[i]))
	}
	return out
}

// unknown reports whether no other rule has an opinion on a text.
func unknown(c *Classifier, text string) bool {
	r := c.Classify(text)
	return r.Rule == "none" || r.Rule == "resembles"
}

func train(xs []example) *model {
	m := newModel(lang, nil, nil, 0, 0)
	const (
		epochs  = 120
		decay   = 0.0015
		perStep = 0.08
	)
	// Adagrad, one example at a time in the order of the file: the same weights at each run.
	gw := make([]float64, len(m.word))
	var gp [len(concepts)][len(concepts)]float64
	gb := 0.0
	step := func(sum *float64, g float64) float32 {
		*sum += g * g
		return float32(perStep * g / (1e-3 + math.Sqrt(*sum)))
	}
	for range epochs {
		for _, x := range xs {
			best, at := float32(-1e9), 0
			for k, s := range x.sentences {
				if v := m.sentence(s); v > best {
					best, at = v, k
				}
			}
			p := 1 / (1 + math.Exp(-float64(best)))
			g := p
			if x.wants {
				g = p - 1
			}
			if math.Abs(g) < 0.02 {
				continue
			}
			ids := x.sentences[at]
			m.bias -= step(&gb, g)
			for i, id := range ids {
				m.word[id] -= step(&gw[id], g+decay*float64(m.word[id]))
				for j := i + 1; j < len(ids) && j <= i+reach; j++ {
					for a := m.concept[id]; a != 0; a &= a - 1 {
						for b := m.concept[ids[j]]; b != 0; b &= b - 1 {
							k, l := bits.TrailingZeros64(a), bits.TrailingZeros64(b)
							m.pair[k][l] -= step(&gp[k][l], g+decay*float64(m.pair[k][l]))
						}
					}
				}
			}
		}
	}
	return m
}

func (m *model) of(x example) float32 {
	best := float32(-1e9)
	for _, s := range x.sentences {
		best = max(best, m.sentence(s))
	}
	return best
}

// folds trains on four fifths and scores the fifth that was left out, five times.
func folds(xs []example) []float32 {
	scores := make([]float32, len(xs))
	for k := range 5 {
		var rest []example
		for i, x := range xs {
			if i%5 != k {
				rest = append(rest, x)
			}
		}
		m := train(rest)
		for i, x := range xs {
			if i%5 == k {
				scores[i] = m.of(x)
			}
		}
	}
	return scores
}

// spare is how many ordinary replies the model may hold, of those of the development halves: the target allows three
// in a hundred, and the patterns hold some already.
const spare = 0.016

// threshold is the score that no more than spare of the ordinary replies reach that the patterns leave to the model, each
// scored by a model that has not seen it.
func threshold(xs []example, scores []float32) float32 {
	var reached []float32
	ordinary := 0
	for i, x := range xs {
		if !x.wants {
			ordinary++
			if x.reached {
				reached = append(reached, scores[i])
			}
		}
	}
	slices.Sort(reached)
	return reached[max(0, len(reached)-1-int(spare*float64(ordinary)))] + 0.01
}

func TestTheModelIsWhatTheDevelopmentHalvesGive(t *testing.T) {
	if testing.Short() || underRace {
		t.Skip("trains six models")
	}
	xs := examples(t)
	scores := folds(xs)
	least := threshold(xs, scores)
	m := train(xs)
	caught, wanted := 0, 0
	for i, x := range xs {
		if x.wants {
			wanted++
			if scores[i] >= least {
				caught++
			}
		}
	}
	t.Logf("%d examples; a model that has not seen them holds %d of %d opt-outs at the threshold %.2f", len(xs), caught, wanted, least)
	got := source(m, least)
	if *update {
		if err := os.WriteFile("weights.go", got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("weights.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("weights.go is not what the corpora give: go test ./connector/reply -run TheModelIs -update, and then -run Readme -update")
	}
}

// source writes the weights that matter, rounded, as Go.
func source(m *model, least float32) []byte {
	var b bytes.Buffer
	b.WriteString("// Code generated by go test -run TheModelIs -update; DO NOT EDIT.\n\npackage reply\n\n")
	fmt.Fprintf(&b, "const modelBias, modelThreshold = %.2f, %.2f\n\n", m.bias, least)
	b.WriteString("var wordWeights = map[string]float32{\n")
	var words []string
	for id, w := range lang.words {
		if x := m.word[id]; x > 0.05 || x < -0.05 {
			words = append(words, fmt.Sprintf("%q: %.2f,\n", w, x))
		}
	}
	sort.Strings(words)
	b.WriteString(strings.Join(words, "") + "}\n\nvar pairWeights = map[[2]string]float32{\n")
	for k, row := range m.pair {
		for l, x := range row {
			if x > 0.05 || x < -0.05 {
				fmt.Fprintf(&b, "{%q, %q}: %.2f,\n", concepts[k], concepts[l], x)
			}
		}
	}
	b.WriteString("}\n")
	out, err := format.Source(b.Bytes())
	if err != nil {
		panic(err)
	}
	return out
}
