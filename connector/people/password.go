package people

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"
)

// What a new password is hashed with: the OWASP password storage cheat sheet's least, doubled in memory.
const (
	argonMemory  = 38 << 10 // KiB
	argonTime    = 2
	argonThreads = 1
	argonSalt    = 16 // bytes
	argonKey     = 32
)

const (
	minPassword = 12  // characters
	maxPassword = 512 // bytes; hashing more is only work for whoever sends it
)

// checkPassword says what is wrong with a new password, "" if nothing is.
func checkPassword(password, name string) string {
	switch {
	case !utf8.ValidString(password):
		return "The password is not text."
	case utf8.RuneCountInString(password) < minPassword:
		return fmt.Sprintf("The password needs at least %d characters. A few words in a row do well.", minPassword)
	case len(password) > maxPassword:
		return fmt.Sprintf("The password is longer than %d bytes.", maxPassword)
	case strings.EqualFold(password, name):
		return "The password must not be the name."
	case strings.Count(password, string([]rune(password)[0])) == utf8.RuneCountInString(password):
		return "The password must not be one character repeated."
	}
	return ""
}

// hash returns the argon2id hash of a password in PHC form.
func (s *Service) hash(ctx context.Context, password string) (string, error) {
	var salt [argonSalt]byte
	_, _ = rand.Read(salt[:]) // never fails (crypto/rand)
	key, err := s.derive(ctx, password, salt[:], argonTime, argonMemory, argonThreads, argonKey)
	if err != nil {
		return "", err
	}
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads, b64(salt[:]), b64(key)), nil
}

// derive hashes; only so many at a time, because each takes its memory.
func (s *Service) derive(ctx context.Context, password string, salt []byte, time, memory uint32, threads uint8, length uint32) ([]byte, error) {
	select {
	case s.hashing <- struct{}{}:
		defer func() { <-s.hashing }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return argon2.IDKey([]byte(norm.NFKC.String(password)), salt, time, memory, threads, length), nil
}

// verify reports whether a password is the one of a hash, and whether the hash is weaker than a new one would be. A hash
// that cannot be read, "" among them, fits no password, and takes as long as one that can.
func (s *Service) verify(ctx context.Context, password, phc string) (ok, weak bool, err error) {
	if len(password) > maxPassword {
		password = ""
	}
	var version int
	var memory, time uint32
	var threads uint8
	salt, want := make([]byte, argonSalt), []byte(nil)
	parts := strings.Split(phc, "$")
	if len(parts) == 6 && parts[1] == "argon2id" {
		_, verr := fmt.Sscanf(parts[2], "v=%d", &version)
		_, perr := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &memory, &time, &threads)
		s64, serr := base64.RawStdEncoding.DecodeString(parts[4])
		k64, kerr := base64.RawStdEncoding.DecodeString(parts[5])
		if verr == nil && perr == nil && serr == nil && kerr == nil && version == argon2.Version && memory <= 1<<20 && time <= 16 && time > 0 && threads > 0 && len(k64) >= 16 {
			salt, want = s64, k64
		}
	}
	if want == nil {
		memory, time, threads = argonMemory, argonTime, argonThreads
	}
	got, err := s.derive(ctx, password, salt, time, memory, threads, uint32(max(len(want), argonKey)))
	if err != nil {
		return false, false, err
	}
	ok = want != nil && subtle.ConstantTimeCompare(got, want) == 1
	return ok, memory < argonMemory || time < argonTime, nil
}
