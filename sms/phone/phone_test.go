package phone

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/nyaruka/phonenumbers"
	"pgregory.net/rapid"
)

func TestParseReadsWhatRecordsHave(t *testing.T) {
	for _, c := range []struct{ in, region, want string }{
		{"+12065550142", "US", "+12065550142"},
		{"2065550142", "US", "+12065550142"},
		{"12065550142", "US", "+12065550142"},
		{"(206) 555-0142", "US", "+12065550142"},
		{"206.555.0142", "US", "+12065550142"},
		{"+1 (206) 555-0142", "GB", "+12065550142"},
		{" 206 555 0142 ", "US", "+12065550142"},
		{"206-555-0142", "CA", "+12065550142"},
		{"206/555-0142", "US", "+12065550142"},
		{"(206) 555-0142 ext. 7", "US", "+12065550142"},
		{"tel:+1-206-555-0142", "US", "+12065550142"},
		{"２０６５５５０１４２", "US", "+12065550142"},
		{"٢٠٦٥٥٥٠١٤٢", "US", "+12065550142"},
		{"011 44 20 7946 0018", "US", "+442079460018"},
		{"+44 20 7946 0018", "US", "+442079460018"},
		{"020 7946 0018", "GB", "+442079460018"},
		{"+49 (0)30 901820", "US", "+4930901820"},
		{"030 901820", "DE", "+4930901820"},
		{"+14155550100", "", "+14155550100"},
		{"2995550142", "US", "+12995550142"}, // an area code that nobody has yet: a length, not a guess at validity
	} {
		n, err := Parse(c.in, c.region)
		if err != nil || n.String() != c.want {
			t.Errorf("Parse(%q, %q) = %v, %v; want %s", c.in, c.region, n, err, c.want)
		}
	}
}

func TestParseRefusesWhatIsNoNumber(t *testing.T) {
	for _, c := range []struct{ in, region string }{
		{"", "US"}, {" ", "US"}, {"+", "US"}, {"n/a", "US"}, {"none", "US"}, {"12345", "US"}, {"0", "US"},
		{"555-0142", "US"},  // no area code
		{"310-5153", "US"},  // would become a Canadian service number
		{"310-5153", "CA"},  //
		{"+13105153", "US"}, //
		{"206555014", "US"}, {"20655501422", "US"}, {"+120655501422", "US"},
		{"2065550142", ""}, {"020 7946 0018", "XX"},
		{"+0123456789", "US"}, {"+9999999999999999", "US"},
		{strings.Repeat("2", 1000), "US"}, {strings.Repeat("+1 206 555 0142 ", 40), "US"},
	} {
		n, err := Parse(c.in, c.region)
		if !errors.Is(err, ErrInvalid) || n.IsValid() {
			t.Errorf("Parse(%.20q, %q) = %v, %v", c.in, c.region, n, err)
		}
		digits := strings.Map(func(r rune) rune {
			if r >= '0' && r <= '9' {
				return r
			}
			return -1
		}, c.in)
		if err != nil && len(digits) >= 5 && strings.Contains(err.Error(), digits) {
			t.Errorf("the error of %.20q contains it: %v", c.in, err)
		}
	}
}

func TestParseE164ReadsOneSpelling(t *testing.T) {
	for _, in := range []string{"+12065550142", "+2904000", "+123456789012345"} {
		if n, err := ParseE164(in); err != nil || n.String() != in {
			t.Errorf("ParseE164(%q) = %v, %v", in, n, err)
		}
	}
	for _, in := range []string{"", "+", "12065550142", "+1 2065550142", "+1206555014x", "+02065550142", "+123456", "+1234567890123456", "＋12065550142", "+1206555014٢", "++2065550142"} {
		if n, err := ParseE164(in); !errors.Is(err, ErrInvalid) || n.IsValid() {
			t.Errorf("ParseE164(%q) = %v, %v", in, n, err)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("MustParse of nonsense did not panic")
		}
	}()
	MustParse("nonsense")
}

// library is what the metadata library makes of a string: a possible number in E.164, "" for none.
func library(s, region string) string {
	p, err := phonenumbers.Parse(s, region)
	if err != nil || !phonenumbers.IsPossibleNumber(p) {
		return ""
	}
	return phonenumbers.Format(p, phonenumbers.E164)
}

// agree compares Parse with the library. They may differ in what Parse refuses and says why: a North American number
// without area code, digits beyond E.164, endless strings. And an exact E.164 form is believed without the metadata.
func agree(t rapid.TB, s, region string) {
	t.Helper()
	n, err := Parse(s, region)
	if (err == nil) != n.IsValid() || err != nil && !errors.Is(err, ErrInvalid) {
		t.Fatalf("Parse(%q, %q) = %v, %v", s, region, n, err)
	}
	want := library(s, region)
	if err == nil {
		if e164, _ := ParseE164(s); want != n.String() && e164 != n {
			t.Fatalf("Parse(%q, %q) = %v, the library says %q", s, region, n, want)
		}
		if again, err := Parse(n.String(), region); err != nil || again != n {
			t.Fatalf("Parse(%q) = %v, its own form gives %v, %v", s, n, again, err)
		}
		return
	}
	if _, err := ParseE164(want); err == nil && len(s) <= 250 && !(want[1] == '1' && len(want) != 12) && !(want[1] == '1' && want[2] < '2') {
		t.Fatalf("Parse(%q, %q): %v, the library says %q", s, region, err, want)
	}
}

func TestParseAgreesWithTheMetadataOnSpellings(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		digits := rapid.StringMatching(`1?[0-9]{7,12}`).Draw(t, "digits")
		var b strings.Builder
		if rapid.Bool().Draw(t, "plus") {
			b.WriteByte('+')
		}
		for i := range digits {
			b.WriteByte(digits[i])
			b.WriteString(rapid.SampledFrom([]string{"", "", "", "", " ", "-", ".", "(", ") ", "/"}).Draw(t, "mark"))
		}
		b.WriteString(rapid.SampledFrom([]string{"", "", "", " x12", " ext 3"}).Draw(t, "extension"))
		agree(t, b.String(), rapid.SampledFrom([]string{"US", "CA", "GB", "DE", "PR"}).Draw(t, "region"))
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"+12065550142", "(206) 555-0142", "310-5153", "+44 20 7946 0018", "1-206-555-0142 x7", "206", "+1", "０２０ 7946", "+1+2065550142", "2065550142(", "1 (206) 5550142-",
		"206-555-0142 ext. 22", "(206) 555-0142x12345", "2065550142 x", "206555x0142", "x22", "n/a", "12 34 56", "+29 04000", "1-800-FLOWERS", "tel:206;phone-context=+1"} {
		f.Add(s, "US")
		f.Add(s, "GB")
	}
	f.Fuzz(func(t *testing.T, s, region string) { agree(t, s, region) })
}

func FuzzParseE164(f *testing.F) {
	f.Add("+12065550142")
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseE164(s); err == nil && (n.String() != s || FromUint64(n.Uint64()) != n) {
			t.Fatalf("%q reads as %v", s, n)
		}
	})
}

func TestAFullNumberIsNeverShown(t *testing.T) {
	n := MustParse("+12065550142")
	if got := n.Masked(); got != "+1••••••0142" {
		t.Error(got)
	}
	var b strings.Builder
	slog.New(slog.NewTextHandler(&b, nil)).Info("send", "to", n)
	if strings.Contains(b.String(), "206555") || !strings.Contains(b.String(), "0142") {
		t.Error(b.String())
	}
	for in, want := range map[string]string{"": "", "1": "•", "1234": "••••", "12345": "•2345", "123456": "••3456", "1234567": "12•4567", "+12065550142": "+1••••••0142"} {
		if got := Mask(in); got != want {
			t.Errorf("Mask(%q) = %q, want %q", in, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "address")
		shown := 0
		for _, r := range Mask(s) {
			if r != '•' {
				shown++
			}
		}
		if shown > 6 {
			t.Fatalf("%d characters of %q are shown", shown, s)
		}
	})
}

func TestANumberSurvivesEveryForm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := FromUint64(rapid.Uint64Range(1_000_000, 999_999_999_999_999).Draw(t, "digits"))
		text, err := n.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back Number
		if err := back.UnmarshalText(text); err != nil || back != n || FromUint64(n.Uint64()) != n || MustParse(n.String()) != n {
			t.Fatalf("%v came back as %v, %v", n, back, err)
		}
	})
	var zero Number
	if b, err := zero.MarshalText(); zero.String() != "" || zero.Masked() != "" || zero.IsValid() || len(b) != 0 || err != nil {
		t.Error("the zero value is a number")
	}
	n := MustParse("+12065550142")
	if err := n.UnmarshalText([]byte("nonsense")); err == nil || n.String() != "+12065550142" {
		t.Errorf("text that is no number: %v, %v", n, err)
	}
	if err := n.UnmarshalText(nil); err != nil || n.IsValid() {
		t.Errorf("empty text: %v, %v", n, err)
	}
	for _, v := range []uint64{0, 999_999, 1_000_000_000_000_000} {
		if FromUint64(v).IsValid() {
			t.Errorf("%d is no number", v)
		}
	}
}

func BenchmarkParseNANP(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("(206) 555-0142", "US"); err != nil {
			b.Fatal(err)
		}
	}
}

func ExampleParse() {
	n, err := Parse("(206) 555-0142 x12", "US")
	fmt.Println(n, n.Masked(), err)
	_, err = Parse("555-0142", "US")
	fmt.Println(err)
	// Output:
	// +12065550142 +1••••••0142 <nil>
	// not a telephone number: a number of the North American plan needs its area code
}

func TestSpacedIsForPeopleAndReadsBackTheSame(t *testing.T) {
	for in, want := range map[string]string{"+14155550142": "+1 415-555-0142", "+442079460958": "+44 20 7946 0958", "+4915123456789": "+49 1512 3456789", "+9991234567": "+9991234567"} {
		if got := MustParse(in).Spaced(); got != want {
			t.Errorf("%s is shown as %q, want %q", in, got, want)
		}
	}
	if got := (Number{}).Spaced(); got != "" {
		t.Errorf("no number is shown as %q", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		n := FromUint64(rapid.Uint64Range(1_000_000, 999_999_999_999_999).Draw(t, "digits"))
		if back, err := ParseE164(strings.NewReplacer(" ", "", "-", "").Replace(n.Spaced())); err != nil || back != n {
			t.Fatalf("%s is shown as %q", n, n.Spaced())
		}
	})
}
