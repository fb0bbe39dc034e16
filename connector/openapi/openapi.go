// Package openapi holds the description of heed's public HTTP API, for people, client generators and CRMs that import
// one, such as Salesforce External Services.
//
// It is a document, not a mechanism: nothing at run time is checked against it or generated from it. That it says what
// [connector.Server] does is the business of the contract test in package connector.
package openapi

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"net/http"
	"time"
)

//go:embed openapi.yaml
var document []byte

// Document returns the description: OpenAPI 3.0.3 (spec.openapis.org/oas/v3.0.3) in YAML. The caller may change the
// copy.
func Document() []byte { return bytes.Clone(document) }

// Handler serves the document to GET and HEAD at whatever path it is mounted on, /openapi.yaml by convention. It needs
// no key: the document holds no secret, and an importer has none yet. It is safe for concurrent use.
//
// The media type is application/yaml (RFC 9512). The document may be cached for an hour, and asked for again by its
// ETag; any release may change it.
func Handler() http.Handler {
	sum := sha256.Sum256(document)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
			return
		}
		h.Set("Content-Type", "application/yaml")
		h.Set("Cache-Control", "public, max-age=3600")
		h.Set("ETag", tag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(document))
	})
}
