// Package phone holds [Number], the one form in which heed compares telephone numbers: E.164.
//
// It is a leaf: it parses and prints numbers and knows nothing of messages, consent or CRMs. It does not judge
// whether a number is in service. A number of a newly opened range is unknown to every metadata table, and
// dropping it from an opt-out list would fail open, so [Parse] asks for a possible length, never for validity.
package phone

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/nyaruka/phonenumbers"
)

// Number is a telephone number in E.164 form (ITU-T E.164: a country code, at most 15 digits in all).
// It is comparable, fits in a word and is safe to copy; the zero value is no number.
//
// Its String is the full number. Logs must not carry full numbers: LogValue and [Number.Masked] show four digits.
type Number struct{ digits uint64 } // the digits read as a decimal; no country code starts with 0, so it is unique

// ErrInvalid is wrapped by every parse error. The error text never contains the input, which may be a full number.
var ErrInvalid = errors.New("not a telephone number")

const (
	minDigits = 7  // the shortest international numbers in use (for example +290 and four digits)
	maxDigits = 15 // ITU-T E.164, section 6
)

// ParseE164 reads a number that is already in E.164 form, "+" and 7 to 15 digits, as providers write it.
// It accepts no other spelling.
func ParseE164(s string) (Number, error) {
	if len(s) < 1+minDigits || len(s) > 1+maxDigits || s[0] != '+' || s[1] == '0' {
		return Number{}, fmt.Errorf("%w: want E.164 (\"+\", then %d to %d digits), got %d characters", ErrInvalid, minDigits, maxDigits, len(s))
	}
	var d uint64
	for i := 1; i < len(s); i++ {
		c := s[i] - '0'
		if c > 9 {
			return Number{}, fmt.Errorf("%w: character %d is not a digit", ErrInvalid, i+1)
		}
		d = d*10 + uint64(c)
	}
	return Number{d}, nil
}

// MustParse is ParseE164 for constants; it panics on a bad number.
func MustParse(s string) Number {
	n, err := ParseE164(s)
	if err != nil {
		panic("phone.MustParse: " + err.Error())
	}
	return n
}

// Parse reads a number as people and CRMs write it. Numbers without a country code are read as numbers of region
// (an ISO 3166-1 alpha-2 code such as "US"); extensions are dropped.
//
// In the regions of the North American Numbering Plan a number without area code is refused: the metadata knows
// seven-digit service numbers in Canada, and completing a US contact's "310-5153" to one of them would be a guess.
func Parse(s, region string) (Number, error) {
	if n, ok := parseNANP(withoutExtension(s), region); ok {
		return n, nil
	}
	if tooFewDigits(s, region) {
		return Number{}, fmt.Errorf("%w: too few digits", ErrInvalid)
	}
	if n, err := ParseE164(s); err == nil && s[1] != '1' {
		return n, nil
	}
	if len(s) > 250 {
		return Number{}, fmt.Errorf("%w: %d characters", ErrInvalid, len(s))
	}
	p, err := phonenumbers.Parse(s, region)
	if err != nil {
		return Number{}, fmt.Errorf("%w: %s", ErrInvalid, err)
	}
	if p.GetCountryCode() == 1 && p.GetNationalNumber() < 2_000_000_000 {
		return Number{}, fmt.Errorf("%w: a number of the North American plan needs its area code", ErrInvalid)
	}
	if !phonenumbers.IsPossibleNumber(p) {
		return Number{}, fmt.Errorf("%w: no number of country code +%d has that length", ErrInvalid, p.GetCountryCode())
	}
	return ParseE164(phonenumbers.Format(p, phonenumbers.E164))
}

// parseNANP reads the spellings that nearly every American record has, without the metadata library, which
// takes 25 µs and more for each: ten digits, or eleven with the leading 1, among spaces and ().-/+ marks.
func parseNANP(s, region string) (Number, bool) {
	international := strings.HasPrefix(s, "+1")
	if !international && region != "US" && region != "CA" {
		return Number{}, false
	}
	if len(s) > 24 {
		return Number{}, false
	}
	var d uint64
	count := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			d = d*10 + uint64(c-'0')
			count++
		case c == '+' && i == 0, c == ' ', c == '(', c == ')', c == '.', c == '-':
		default:
			return Number{}, false
		}
	}
	switch {
	case count == 10 && !international && s[0] != '+':
		d += 1_00000_00000
	case count == 11 && d/1_00000_00000 == 1:
	case count == 13 && !international && d/1_00000_00000 == 1 && strings.HasPrefix(strings.TrimLeft(s, " ("), "00"):
		// 00 is not how one dials abroad from here, but it is how people elsewhere write a "+".
	default:
		return Number{}, false
	}
	area, office := d/1000_0000%1000, d/10000%1000
	if area < 200 || office < 200 { // NANP: neither the area nor the office code starts with 0 or 1
		return Number{}, false
	}
	return Number{d}, true
}

// Spaced returns the number as people read it, in the international form of its country: "+1 415-555-0142". Parse reads
// it back. It is "" for the zero Number.
func (n Number) Spaced() string {
	p, err := phonenumbers.Parse(n.String(), "")
	if err != nil {
		return n.String()
	}
	s := phonenumbers.Format(p, phonenumbers.INTERNATIONAL)
	if back, err := Parse(s, ""); err != nil || back != n { // one that the metadata would write as another
		return n.String()
	}
	return s
}

// withoutExtension cuts off what nearly every extension looks like: "x22", "ext 22", "ext. 22". Other forms, and strings in
// which it may be something else, are left to the metadata library.
func withoutExtension(s string) string {
	end := len(s)
	for end > 0 && s[end-1] >= '0' && s[end-1] <= '9' {
		end--
	}
	if digits := len(s) - end; digits == 0 || digits > 5 {
		return s
	}
	head := strings.TrimSuffix(s[:end], " ")
	cut := false
	for _, mark := range []string{"ext.", "ext", "x"} {
		if head, cut = strings.CutSuffix(head, mark); cut {
			break
		}
	}
	if !cut {
		return s
	}
	return strings.TrimRight(head, " ")
}

// tooFewDigits reports that a string cannot hold a number, without the metadata: what stands in a phone field by
// mistake is words or a stump, mostly. Other scripts have digits of their own, and letters can stand for digits, so both are left to
// the library.
func tooFewDigits(s, region string) bool {
	digits, letters := 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= 0x80:
			return false
		case c >= '0' && c <= '9':
			digits++
		case c|0x20 >= 'a' && c|0x20 <= 'z':
			letters = true
		}
	}
	return digits < 2 || digits < minDigits && !letters && (region == "US" || region == "CA")
}

// FromUint64 is the inverse of [Number.Uint64]. It returns the zero Number for a value that is no number.
func FromUint64(v uint64) Number {
	if v < 1_000_000 || v > 999_999_999_999_999 {
		return Number{}
	}
	return Number{v}
}

// Uint64 returns the digits read as a decimal, for compact keys; 0 for the zero Number.
func (n Number) Uint64() uint64 { return n.digits }

// IsValid reports whether n is a number at all (not the zero value).
func (n Number) IsValid() bool { return n.digits != 0 }

// String returns the E.164 form, or "" for the zero value. Use it for requests and stored data, never for logs.
func (n Number) String() string {
	if n.digits == 0 {
		return ""
	}
	return string(n.append(nil))
}

func (n Number) append(b []byte) []byte { return strconv.AppendUint(append(b, '+'), n.digits, 10) }

// Masked returns the number with all but its country digit and last four digits hidden, as in "+1•••••••0142".
func (n Number) Masked() string {
	if n.digits == 0 {
		return ""
	}
	return Mask(n.String())
}

// Mask hides all but the beginning and the last four characters of any address, valid or not, for logs and errors.
func Mask(address string) string {
	r := []rune(address)
	keep := 2
	if len(r) <= 6 {
		keep = 0
	}
	for i := keep; i < len(r)-4 || (i < len(r) && len(r) <= 4); i++ {
		r[i] = '•'
	}
	return string(r)
}

// LogValue masks the number in log/slog output.
func (n Number) LogValue() slog.Value { return slog.StringValue(n.Masked()) }

// MarshalText returns the E.164 form.
func (n Number) MarshalText() ([]byte, error) {
	if n.digits == 0 {
		return nil, nil
	}
	return n.append(nil), nil
}

// UnmarshalText reads the E.164 form; empty text gives the zero Number.
func (n *Number) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*n = Number{}
		return nil
	}
	v, err := ParseE164(string(b))
	if err == nil {
		*n = v
	}
	return err
}
