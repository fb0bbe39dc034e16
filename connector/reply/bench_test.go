package reply

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"
)

// replies returns the texts of the corpus, which are about as long as real replies, and the same as lines.
func replies() (texts []string, joined []byte) {
	sc := bufio.NewScanner(Corpus())
	for sc.Scan() {
		f := strings.SplitN(sc.Text(), "\t", 3)
		texts = append(texts, f[2])
		joined = append(append(joined, f[2]...), '\n')
	}
	return texts, joined
}

func BenchmarkClassify(b *testing.B) {
	texts, _ := replies()
	exact := []string{"STOP", "Stop.", "stop", "UNSUBSCRIBE", "START", "help", "Cancel", "ARRÊT"}
	c := Default()
	for _, bm := range []struct {
		name  string
		texts []string
	}{{"exact", exact}, {"corpus", texts}} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				c.Classify(bm.texts[i%len(bm.texts)])
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "replies/s")
		})
	}
}

// The floor is what reading the lines and one look-up for each must cost.
func BenchmarkLines(b *testing.B) {
	texts, joined := replies()
	rate := func(b *testing.B) {
		b.ReportMetric(float64(b.N*len(texts))/b.Elapsed().Seconds(), "lines/s")
	}
	b.Run("floor", func(b *testing.B) {
		m := map[string]int{"STOP": 1}
		n := 0
		for b.Loop() {
			sc := bufio.NewScanner(bytes.NewReader(joined))
			for sc.Scan() {
				n += m[string(sc.Bytes())]
			}
		}
		rate(b)
	})
	b.Run("classify", func(b *testing.B) {
		for b.Loop() {
			if err := ClassifyLines(b.Context(), bytes.NewReader(joined), io.Discard, Default()); err != nil {
				b.Fatal(err)
			}
		}
		rate(b)
	})
}
