package reply

import (
	"math/bits"
	"strings"
)

// The last rule asks whether a reply that no pattern knows resembles the requests of the corpus: a linear model over its
// words and over pairs of their classes, sentence by sentence. It can only hold, never opt out, because it cannot say
// why. Its weights are computed from the development halves of the corpora (train_test.go) and kept in weights.go; a
// test computes them again.

// concepts are the classes of words whose pairs the model looks at: sets of the patterns.
var concepts = [...]string{
	"cease", "cease2", "talking", "getting", "talk", "talk2", "mail", "texts", "list", "remove", "take", "unsub", "program", "me", "you", "them", "person",
	"poss", "phone", "neg", "say", "wipe", "record", "det", "lead", "tail", "filler", "swear", "elsewhere", "time", "leftnoun",
	"es_send", "es_dont", "es_mail", "es_off", "fr_mail", "fr_off", "pt_send", "pt_dont", "pt_mail", "pt_list", "pt_off", "de_mail", "de_dont",
	"-first", "-number", "-unknown", "-want",
}

// more classes, of which the patterns have no set.
var conceptWords = map[string]string{
	"-first": "i im ive id ill we were weve my mine our yo je no quiero ich eu",
	"-want":  "want wanna wish need like interested care asked ask signed subscribed agreed consent permission quiero veux mochte will quero",
}

const reach = 3 // words behind a word that it makes pairs with

// model is the compiled form of the weights. It is immutable.
type model struct {
	word    []float32 // by vocabulary number
	concept []uint64  // by vocabulary number: bit set of concepts
	pair    [len(concepts)][len(concepts)]float32
	bias    float32
	least   float32 // score from which a reply is held
}

var resemblance = newModel(lang, wordWeights, pairWeights, modelBias, modelThreshold)

func newModel(g *grammar, words map[string]float32, pairs map[[2]string]float32, bias, least float32) *model {
	m := &model{word: make([]float32, len(g.words)), concept: make([]uint64, len(g.words)), bias: bias, least: least}
	for id, w := range g.words { // the shapes among them have no entry in ids
		m.word[id] = words[w]
	}
	number := map[string]int{}
	c := &compiler{sets: sets, ids: g.ids, words: g.words, elems: map[string]uint16{}}
	for n, name := range concepts {
		number[name] = n
		members := map[uint16]bool{}
		switch name {
		case "-number":
			members[idNumber], members[idLong], members[idAlnum] = true, true, true
		case "-unknown":
			members[idUnknown] = true
		default:
			if list, ok := conceptWords[name]; ok {
				for _, w := range strings.Fields(list) {
					if id, ok := g.ids[w]; ok {
						members[id] = true
					}
				}
				break
			}
			c.collect("@"+name, members)
		}
		for id := range members {
			m.concept[id] |= 1 << n
		}
	}
	for k, x := range pairs {
		m.pair[number[k[0]]][number[k[1]]] = x
	}
	return m
}

// score returns how much a message resembles a request: the highest of its sentences.
func (m *model) score(tok []token, ids []uint16) float32 {
	best := float32(-1e9)
	for i := 0; i < len(ids); {
		j := i + 1
		for j < len(ids) && tok[j].flags&afterBreak == 0 {
			j++
		}
		best = max(best, m.sentence(ids[i:j]))
		i = j
	}
	return best
}

func (m *model) sentence(ids []uint16) float32 {
	s := m.bias
	for i, id := range ids {
		s += m.word[id]
		a := m.concept[id]
		if a == 0 {
			continue
		}
		for j := i + 1; j < len(ids) && j <= i+reach; j++ {
			for x := a; x != 0; x &= x - 1 {
				row := &m.pair[bits.TrailingZeros64(x)]
				for y := m.concept[ids[j]]; y != 0; y &= y - 1 {
					s += row[bits.TrailingZeros64(y)]
				}
			}
		}
	}
	return s
}
