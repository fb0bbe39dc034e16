package confirm

import (
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// The tables of 3GPP TS 23.038 have 128 and 10 positions; the first has the escape among them.
func TestTheAlphabetIsComplete(t *testing.T) {
	if n := utf8.RuneCountInString(gsmBasic); n != 127 {
		t.Errorf("the basic table has %d characters, want 127", n)
	}
	if n := utf8.RuneCountInString(gsmExtension); n != 10 {
		t.Errorf("the extension table has %d characters, want 10", n)
	}
	if len(gsmWidth) != 137 {
		t.Errorf("%d distinct characters, want 137", len(gsmWidth))
	}
	// Spot checks of positions; those after the escape are one lower here.
	runes := []rune(gsmBasic)
	for code, want := range map[int]rune{
		0x00: '@', 0x02: '$', 0x09: 'Ç', 0x0A: '\n', 0x0D: '\r', 0x10: 'Δ', 0x11: '_', 0x1A: 'Ξ', 0x1C: 'Æ', 0x1F: 'É', 0x20: ' ', 0x24: '¤',
		0x30: '0', 0x40: '¡', 0x41: 'A', 0x5A: 'Z', 0x5B: 'Ä', 0x5C: 'Ö', 0x5D: 'Ñ', 0x5E: 'Ü', 0x5F: '§', 0x60: '¿', 0x61: 'a', 0x7A: 'z',
		0x7B: 'ä', 0x7C: 'ö', 0x7D: 'ñ', 0x7E: 'ü', 0x7F: 'à',
	} {
		i := code
		if code > 0x1B {
			i--
		}
		if runes[i] != want {
			t.Errorf("position %#x is %q, want %q", code, runes[i], want)
		}
	}
}

func TestGSM7CountsSeptets(t *testing.T) {
	for _, tt := range []struct {
		text    string
		septets int
		bad     rune
	}{
		{"", 0, 0}, {"STOP", 4, 0}, {"@£$¥èéùìòÇØøÅåÆæßÉÄÖÑÜäöñüà", 27, 0}, {"ΔΦΓΛΩΠΨΣΘΞ", 10, 0}, {"¡¿§¤", 4, 0},
		{"\n\r", 2, 0}, {"^", 2, 0}, {"{}\\[~]|€", 16, 0}, {"\f", 2, 0}, {"a€b", 4, 0}, {"_-'\"", 4, 0},
		{"á", 0, 'á'}, {"í", 0, 'í'}, {"ó", 0, 'ó'}, {"ú", 0, 'ú'}, {"ç", 0, 'ç'}, {"â", 0, 'â'}, {"ê", 0, 'ê'}, {"ô", 0, 'ô'}, {"õ", 0, 'õ'},
		{"ã", 0, 'ã'}, {"î", 0, 'î'}, {"È", 0, 'È'}, {"À", 0, 'À'}, {"Á", 0, 'Á'}, {"œ", 0, 'œ'}, {"’", 0, '’'}, {"`", 0, '`'}, {"\t", 0, '\t'},
		{"\x1b", 0, '\x1b'}, {"\u00a0", 0, '\u00a0'}, {"α", 0, 'α'}, {"ok \U0001F600", 0, '\U0001F600'}, {"e\u0301", 0, '\u0301'}, {"\xff", 0, utf8.RuneError},
	} {
		septets, ok, bad := GSM7(tt.text)
		if septets != tt.septets || ok != (tt.bad == 0) || bad != tt.bad {
			t.Errorf("GSM7(%q) = %d, %v, %q; want %d and %q", tt.text, septets, ok, bad, tt.septets, tt.bad)
		}
	}
}

func TestSegments(t *testing.T) {
	for _, tt := range []struct {
		name string
		text string
		want int
	}{
		{"nothing", "", 0},
		{"160 septets", strings.Repeat("a", 160), 1},
		{"161 septets", strings.Repeat("a", 161), 2},
		{"306 septets", strings.Repeat("a", 306), 2},
		{"307 septets", strings.Repeat("a", 307), 3},
		{"80 euro signs", strings.Repeat("€", 80), 1},
		{"an escape that would be torn at 153", strings.Repeat("a", 152) + "€" + strings.Repeat("a", 152), 3},
		{"the same one place earlier", strings.Repeat("a", 151) + "€" + strings.Repeat("a", 153), 2},
		{"70 units", strings.Repeat("á", 70), 1},
		{"71 units", strings.Repeat("á", 71), 2},
		{"134 units", strings.Repeat("á", 134), 2},
		{"135 units", strings.Repeat("á", 135), 3},
		{"35 emoji", strings.Repeat("\U0001F600", 35), 1},
		{"36 emoji", strings.Repeat("\U0001F600", 36), 2},
		{"67 emoji, of which 33 fit a part", strings.Repeat("\U0001F600", 67), 3},
		{"one accent makes a long text longer", strings.Repeat("a", 159) + "á", 3},
	} {
		if got := Segments(tt.text); got != tt.want {
			t.Errorf("%s: %d segments, want %d", tt.name, got, tt.want)
		}
	}
}

func TestTransliterate(t *testing.T) {
	for text, want := range map[string]string{
		"Café Ñandú": "Café Ñandu", "São João": "Sao Joao", "façade": "facade", "l’œuf “dur”": `l'oeuf "dur"`, "a—b…": "a-b...", "Łódź": "Lodz",
		"\u00a0x\u200b\ufeff": " x", "e\u0301": "é", "ﬁn": "fin", "½": "1/2", "™": "TM", "Ａｃｍｅ": "Acme", "{€}": "{€}", "a\x00b": "ab", "ÈÁ": "EA",
	} {
		if got, ok := Transliterate(text); !ok || got != want {
			t.Errorf("Transliterate(%q) = %q, %v; want %q", text, got, ok, want)
		}
	}
	for _, text := range []string{"Пример", "例", "a\U0001F600", "\xff"} {
		if got, ok := Transliterate(text); ok {
			t.Errorf("Transliterate(%q) = %q, ok", text, got)
		}
	}
}

func TestTransliterationIsInTheAlphabetAndStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String().Draw(t, "text")
		got, _ := Transliterate(text)
		if _, ok, bad := GSM7(got); !ok {
			t.Fatalf("Transliterate(%q) = %q has %q", text, got, bad)
		}
		if again, ok := Transliterate(got); !ok || again != got {
			t.Fatalf("Transliterate(%q) = %q", got, again)
		}
	})
}

func TestSegmentsHoldTheWholeText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOfN(rapid.RuneFrom([]rune("ab€[é\U0001F600á")), 0, 400, -1).Draw(t, "text")
		n := Segments(text)
		size, part := len(utf16.Encode([]rune(text))), partUnits
		if septets, ok, _ := GSM7(text); ok {
			size, part = septets, partSeptets
		}
		// At most one place is lost at the end of each part, where a double character does not fit.
		if n > 1 && (n*part < size || (n-1)*(part-1) >= size) {
			t.Fatalf("%d segments for %d places", n, size)
		}
	})
}

func FuzzGSM7(f *testing.F) {
	for _, s := range []string{"", "STOP", "€[", "á", "\xff\xfe", "\U0001F600", "e\u0301"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, ok, bad := GSM7(text)
		if ok && bad != 0 || !ok && (n != 0 || !strings.ContainsRune(text, bad) && bad != utf8.RuneError) {
			t.Fatalf("GSM7(%q) = %d, %v, %q", text, n, ok, bad)
		}
		if ok && (n < utf8.RuneCountInString(text) || n > 2*utf8.RuneCountInString(text)) {
			t.Fatalf("%d septets for %q", n, text)
		}
		if got := Segments(text); (got == 0) != (text == "") {
			t.Fatalf("%d segments for %q", got, text)
		}
		if g, _ := Transliterate(text); ok && g != text {
			t.Fatalf("Transliterate(%q) = %q", text, g)
		}
	})
}

func BenchmarkGSM7(b *testing.B) {
	text := strings.Repeat("Reply STOP to stop ", 8)
	for b.Loop() {
		GSM7(text)
	}
}
