package reply

var yes = func() map[string]bool {
	m := map[string]bool{}
	for _, w := range affirmations {
		m[normalise(w)] = true
	}
	return m
}()

// Classify decides what a text means. It reads at most the first 4,096 characters; a longer text in which it finds
// no request to stop is held, because the rest was not read. The time is linear in what is read, and short replies
// cost no allocation.
func (c *Classifier) Classify(text string) Result {
	var buf [192]byte
	var tok [40]token
	m := message{buf: buf[:0], tok: tok[:0]}
	m.fold(text)
	if r, ok := c.exact[string(m.buf)]; ok {
		return r
	}
	r := c.classify(text, &m)
	if m.cut && r.Verdict != OptOut {
		return Result{Hold, "too_long", ""}
	}
	return r
}

func (c *Classifier) classify(text string, m *message) Result {
	if len(m.tok) == 0 {
		switch {
		case m.stopSign:
			return Result{Hold, "stop_emoji", ""}
		case m.blank:
			return Result{None, "blank", ""}
		}
		return Result{None, "none", ""}
	}
	if yes[string(m.buf)] {
		return Result{None, "yes", ""}
	}
	return Result{None, "none", ""}
}
