package export

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/heed-sms/heed/sms/phone"
)

// Cell makes a text safe to open in a spreadsheet: one that begins like a formula gets an apostrophe before it (OWASP, CSV
// injection: = + - @, tab, carriage return and line feed; their full-width forms too, and behind blanks). A telephone
// number in E.164 form is no formula and stays as it is. [Text] is the inverse.
func Cell(s string) string {
	if dangerous(strings.TrimLeft(s, "'")) {
		return "'" + s
	}
	return s
}

// Text returns what Cell was given. Cells that other programs guarded in the same way are read likewise.
func Text(cell string) string {
	if strings.HasPrefix(cell, "'") && dangerous(strings.TrimLeft(cell, "'")) {
		return cell[1:]
	}
	return cell
}

// dangerous reports whether a spreadsheet may take s for a formula.
func dangerous(s string) bool {
	if s == "" {
		return false
	}
	if strings.IndexByte("\t\r\n", s[0]) >= 0 {
		return true
	}
	first, _ := utf8.DecodeRuneInString(strings.TrimLeftFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) }))
	if !strings.ContainsRune("=+-@＝＋－＠", first) || first == utf8.RuneError {
		return false
	}
	_, err := phone.ParseE164(s)
	return err != nil
}
