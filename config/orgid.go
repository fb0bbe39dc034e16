package config

import (
	"errors"
	"strings"
)

// OrgID is the id of a Salesforce organisation in its 18-character form. The file may have the 15-character one.
//
// A Salesforce id is 15 case-sensitive characters; the longer form adds three that encode which of them are
// capitals, so that it survives systems that ignore case. Organisation ids begin with 00D.
// https://help.salesforce.com/s/articleView?id=000385008&type=1
type OrgID string

// UnmarshalText reads either form, and checks the three characters of the longer one.
func (o *OrgID) UnmarshalText(b []byte) error {
	s := string(b)
	switch {
	case s == "":
		return nil
	case len(s) != 15 && len(s) != 18 || strings.ContainsFunc(s, func(r rune) bool { return !isWord(r) || r == '_' }):
		return errors.New("want the 15 or 18 letters and digits of a Salesforce organisation id")
	case !strings.HasPrefix(s, "00D"):
		return errors.New("is not the id of an organisation: those begin with 00D")
	case len(s) == 18 && !strings.EqualFold(checkChars(s), s[15:]):
		return errors.New("has a typing error: its last three characters do not match the others")
	}
	*o = OrgID(s[:15] + checkChars(s))
	return nil
}

// checkChars returns the three characters for the first 15 of an id.
func checkChars(id string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
	var out [3]byte
	for i := range out {
		bits := 0
		for j := range 5 {
			if c := id[5*i+j]; c >= 'A' && c <= 'Z' {
				bits |= 1 << j
			}
		}
		out[i] = alphabet[bits]
	}
	return string(out[:])
}
