package config

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// redacted stands wherever a secret would be.
const redacted = "[redacted]"

// Secret is a string that does not show itself: printed, logged or marshalled in any way it is "[redacted]", and
// only [Secret.Reveal] gives it away. The zero value is no secret. Compare one with input from outside by
// crypto/subtle; == compares identities.
type Secret struct {
	value *string // a pointer, because fmt prints the unexported fields of an enclosing struct without asking String
}

// NewSecret wraps a secret.
func NewSecret(s string) Secret { return Secret{&s} }

// Reveal returns the secret itself, "" for the zero value.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsZero reports whether there is no secret at all.
func (s Secret) IsZero() bool { return s.Reveal() == "" }

// String returns "[redacted]".
func (s Secret) String() string { return redacted }

// GoString returns "[redacted]".
func (s Secret) GoString() string { return redacted }

// Format writes "[redacted]" for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue redacts the secret in log/slog output.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText redacts the secret in JSON and wherever else encoding.TextMarshaler is honoured.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalYAML redacts the secret in YAML.
func (s Secret) MarshalYAML() (any, error) { return redacted, nil }

// secretWords mark a key as secret when they are one of the words of its name. Driver configurations cannot
// use Secret (a driver imports nothing of heed but its contract), so there the name has to do.
var secretWords = map[string]bool{
	"token": true, "tokens": true, "secret": true, "secrets": true, "password": true, "passwords": true,
	"passphrase": true, "key": true, "keys": true, "auth": true, "credential": true, "credentials": true, "hook": true,
}

// secretName reports whether a value under this key is to be kept secret: auth_token is, keywords is not.
func secretName(key string) bool {
	for w := range strings.FieldsFuncSeq(strings.ToLower(key), func(r rune) bool { return r == '_' || r == '-' || r == '.' }) {
		if secretWords[w] {
			return true
		}
	}
	return false
}
