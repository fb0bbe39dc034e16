#!/bin/sh
# Writes the external service registration from the description of heed's API. Run it after each change of
# connector/openapi/openapi.yaml; a Go test (cmd/heed, TestSalesforcePackage) fails until you do.
#
# External Services takes the types application/json, text/plain and application/x-www-form-urlencoded, and no
# registration with another one (Salesforce Help, "Media Type Directives and Mapping"). So the copy calls heed's problem
# documents what they also are, JSON, and CSV text. Comments are left out.
set -eu
cd "$(dirname "$0")"
spec=../../connector/openapi/openapi.yaml
out=sending/main/default/externalServiceRegistrations/heed.externalServiceRegistration-meta.xml

schema=$(sed -e '/^#/d' \
	-e 's|^\( *\)application/problem+json:|\1application/json:|' \
	-e 's|^\( *\)text/csv:|\1text/plain:|' \
	-e 's/&/\&amp;/g' -e 's/</\&lt;/g' -e 's/>/\&gt;/g' "$spec")
mkdir -p "$(dirname "$out")"
cat >"$out.new" <<EOF
<?xml version="1.0" encoding="UTF-8"?>
<ExternalServiceRegistration xmlns="http://soap.sforce.com/2006/04/metadata">
    <description>Sends text messages through heed, which refuses those whose recipient opted out.</description>
    <label>heed</label>
    <namedCredentialReference>heed</namedCredentialReference>
    <registrationProviderType>Custom</registrationProviderType>
    <schema>$schema
</schema>
    <schemaType>OpenApi3</schemaType>
    <schemaUploadFileExtension>yaml</schemaUploadFileExtension>
    <schemaUploadFileName>heed</schemaUploadFileName>
    <status>Complete</status>
</ExternalServiceRegistration>
EOF
mv "$out.new" "$out"
