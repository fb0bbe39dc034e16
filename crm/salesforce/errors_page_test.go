package salesforce

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// Each code of Salesforce's that heed knows is in docs/errors.md under its class, with what to do, and no other is.
func TestEveryCodeIsOnThePage(t *testing.T) {
	page, err := os.ReadFile("../../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "\n## What Salesforce says\n")
	if !found {
		t.Fatal("docs/errors.md has no section about Salesforce")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	documented := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]+`) \\| ([a-z_]+) \\| [^|]+ \\|$").FindAllStringSubmatch(section, -1) {
		for code := range strings.FieldsSeq(row[1]) {
			code = strings.Trim(code, "`")
			if documented[code] != "" {
				t.Errorf("%s stands in two rows", code)
			}
			documented[code] = row[2]
		}
	}
	for code, class := range classes {
		if documented[code] != string(class) {
			t.Errorf("%s is %q in docs/errors.md, and %s in the program", code, documented[code], class)
		}
		delete(documented, code)
	}
	for code := range documented {
		t.Errorf("docs/errors.md has %s, which heed does not know", code)
	}
}
