package twiliofake

import "strings"

// The GSM 7-bit default alphabet and its extension table, 3GPP TS 23.038 §6.2.1. An extension character takes two septets.
const (
	gsm7 = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?" +
		"¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
	gsm7Extension = "\f^{}\\[~]|€"
)

// segments is how many SMS a text takes: 160 septets or 70 UTF-16 units in one, else 153 or 67 each. A two-unit
// character is not split between segments.
func segments(text string) int {
	single, multi, width := 160, 153, func(r rune) int {
		if strings.ContainsRune(gsm7Extension, r) {
			return 2
		}
		return 1
	}
	if strings.IndexFunc(text, func(r rune) bool { return !strings.ContainsRune(gsm7+gsm7Extension, r) }) >= 0 {
		single, multi, width = 70, 67, func(r rune) int {
			if r > 0xFFFF {
				return 2
			}
			return 1
		}
	}
	total, parts, room := 0, 1, multi
	for _, r := range text {
		w := width(r)
		total += w
		if w > room {
			parts, room = parts+1, multi
		}
		room -= w
	}
	if total <= single {
		return 1
	}
	return parts
}
