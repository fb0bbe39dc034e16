#!/bin/sh
# Makes the client that the tests drive heed's API with from the description. Run it after each change of openapi.yaml (a
# test fails until you do).
set -eu
cd "$(dirname "$0")"
config=$(mktemp)
trap 'rm -f "$config"' EXIT
cat >"$config" <<END
package: openapi_test
generate: { models: true, client: true }
output: client_gen_test.go
END
go run github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@v2.8.2 -config "$config" openapi.yaml
printf '\n// madeFrom is the SHA-256 of the description that this client was made from.\nconst madeFrom = "%s"\n' "$(sha256sum openapi.yaml | cut -d' ' -f1)" >>client_gen_test.go
