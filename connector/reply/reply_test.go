package reply

import "testing"

func TestExactWordsAreFoundInAnySpelling(t *testing.T) {
	for text, want := range map[string]Verdict{
		"STOP": OptOut, " stop. ": OptOut, "Ｓｔｏｐ": OptOut, "S T O P": OptOut, "s.t.o.p": OptOut, "ARRÊT": OptOut,
		"opt-out": OptOut, "“STOP”": OptOut, "ST\u200bOP 🙏": OptOut, "ОСТАНОВИТЬ": OptOut, "stop :p": OptOut,
		"s\xfftop": OptOut, "𝐒𝐓𝐎𝐏": OptOut, "🅂🅃🄾🄿": OptOut,
		"UNSTOP": OptIn, "Start!": OptIn, "help": Help, "YES": None, "": None, "hello": None, "🛑": Hold,
	} {
		if got := Default().Classify(text); got.Verdict != want {
			t.Errorf("Classify(%q) = %+v, want %s", text, got, want)
		}
	}
}
