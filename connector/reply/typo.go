package reply

// target is a word that others are compared with.
type target struct {
	word    string
	letters uint64
}

func newTarget(w string) target { return target{word: w} }
