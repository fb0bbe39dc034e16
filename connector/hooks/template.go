package hooks

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/heed-sms/heed/connector"
)

var placeholder = regexp.MustCompile(`\{\{\s*([A-Za-z][A-Za-z0-9_.]*)\s*\}\}`)

// CheckTemplate says what is wrong with a template, "" if nothing is. Braces that belong to no placeholder are taken for a
// mistake: the recipient would see them.
func CheckTemplate(template string) string {
	rest := placeholder.ReplaceAllString(template, "")
	switch {
	case strings.TrimSpace(template) == "":
		return "is empty"
	case strings.Contains(rest, "{{") || strings.Contains(rest, "}}"):
		return "has braces that are no placeholder; a placeholder is the API name of a field of the outbound message, as in {{FirstName}}"
	}
	return ""
}

// Fill puts the values of fields into a template. A field that the message does not carry, or that is empty, is an
// *connector.InputError: a text with a hole in it is not sent. Values are taken as they are; nothing in them is a
// placeholder.
func Fill(template string, fields map[string]string) (string, error) {
	var missing []string
	text := placeholder.ReplaceAllStringFunc(template, func(p string) string {
		name := placeholder.FindStringSubmatch(p)[1]
		v := fields[name]
		if strings.TrimSpace(v) == "" {
			missing = append(missing, name)
		}
		return v
	})
	if len(missing) > 0 {
		return "", &connector.InputError{Field: missing[0], Reason: fmt.Sprintf("is empty or not part of the outbound message, and the template needs it (%d such fields)", len(missing))}
	}
	return text, nil
}
