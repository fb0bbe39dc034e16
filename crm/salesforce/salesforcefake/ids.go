package salesforcefake

import "strings"

// Record ids are 15 case-sensitive characters: a three-character key prefix that names the object, three that name
// the instance, and a base-62 number. The API writes them with three more characters that make them safe to compare
// without case: for each group of five, bit i is set if character i is a capital, and the group's number picks one of
// [checkAlphabet].
const (
	base62        = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	checkAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
	pod           = "Ho0"
)

// ID18 returns the 18-character form of a 15-character id, with its check characters. A string of any other length
// is returned as it is.
func ID18(id15 string) string {
	if len(id15) != 15 {
		return id15
	}
	return id15 + checkChars(id15)
}

func checkChars(id15 string) string {
	var out [3]byte
	for g := range 3 {
		n := 0
		for i := range 5 {
			if c := id15[g*5+i]; c >= 'A' && c <= 'Z' {
				n |= 1 << i
			}
		}
		out[g] = checkAlphabet[n]
	}
	return string(out[:])
}

// canonicalID reads an id in any form that Salesforce takes: 15 characters, 18 with right check characters, or 18 whose
// letter case was lost on the way (all upper or all lower), which the check characters restore.
func canonicalID(s string) (id18 string, ok bool) {
	for i := range len(s) {
		if strings.IndexByte(base62, s[i]) < 0 {
			return "", false
		}
	}
	switch len(s) {
	case 15:
		return ID18(s), true
	case 18:
		restored, ok := restoreCase(s)
		if !ok {
			return "", false
		}
		lostCase := s == strings.ToUpper(s) || s == strings.ToLower(s)
		if restored != s[:15] && !lostCase {
			return "", false
		}
		return ID18(restored), true
	}
	return "", false
}

func restoreCase(s string) (string, bool) {
	var out [15]byte
	check := strings.ToUpper(s[15:])
	for g := range 3 {
		n := strings.IndexByte(checkAlphabet, check[g])
		if n < 0 {
			return "", false
		}
		for i := range 5 {
			c := s[g*5+i]
			letter := c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
			upper := n&(1<<i) != 0
			switch {
			case upper && !letter:
				return "", false
			case upper:
				c &^= 0x20
			case letter:
				c |= 0x20
			}
			out[g*5+i] = c
		}
	}
	return string(out[:]), true
}

// makeID15 writes the id with the given number.
func makeID15(prefix string, num uint32) string {
	var b [15]byte
	copy(b[:], prefix)
	copy(b[3:], pod)
	for i := 14; i >= 6; i-- {
		b[i] = base62[num%62]
		num /= 62
	}
	return string(b[:])
}

// numberOf returns where an id stands in the sequence of one object: its number if it is exactly one of that object's
// ids, otherwise the number of the last id before it (so that "greater than" works for any id).
func numberOf(prefix, id15 string) (num int64, exact bool) {
	head := prefix + pod
	switch {
	case id15[:6] < head:
		return 0, false
	case id15[:6] > head:
		return 1 << 33, false
	}
	for i := 6; i < 15; i++ {
		num = num*62 + int64(strings.IndexByte(base62, id15[i]))
		if num > 1<<33 {
			return 1 << 33, false
		}
	}
	return num, num > 0
}
