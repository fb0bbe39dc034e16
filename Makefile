.DEFAULT_GOAL := help

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: ## watch heed work, without any account
	go run ./cmd/heed demo

test: ## all tests
	go test ./...

race: ## all tests under the race detector
	go test -race ./...

lint: ## gofmt, vet, staticcheck
	@test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	go vet ./...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...

check: lint race demo-exit ## what CI runs

demo-exit: ## play the demo's story and fail if a step does not hold
	go run ./cmd/heed demo --exit

bench: ## measure heed against floors in the same run
	go test -run '^$$' -bench Floors -benchtime 1x -timeout 20m ./cmd/heed
	go test -run '^$$' -bench 'GroupCommit|Append' -benchtime 7x -p 1 ./connector/ledger/journal ./connector/ledger/local
	go test -run '^$$' -bench 'Million/(rebuild|start)' -benchtime 1x -timeout 20m ./connector/ledger/local
	go test -run '^$$' -bench 'Million/decide' -benchtime 2000000x -timeout 20m ./connector/ledger/local
	go test -run '^$$' -bench 'Classify|Lines' -benchtime 2s ./connector/reply
	go test -run '^$$' -bench FullPass -benchtime 3x ./sync/reconcile
	go test -run '^$$' -bench MirrorAfterPurge -benchtime 7x ./connector/ledger/local
	HEED_OPTOUTS=1000000 go test -count=1 -timeout 30m -run TestAMillionOptOuts -v ./connector/admin

	go test -run '^$$' -bench FullPass -benchtime 1x ./sync/reconcile
	go test -run '^$$' -bench SeedMillion -benchtime 1x ./crm/salesforce/salesforcefake
	go test -run '^$$' -bench ScanMillion -benchtime 1x -timeout 20m ./crm/salesforce

crash: ## 50 kill -9 cycles of a whole daemon, and 500 of a nightly pass
	go test -count=1 -run TestKilledAtAnyMoment -v ./cmd/heed
	HEED_KILLS=500 go test -count=1 -timeout 20m -run TestAPassThatIsKilled ./sync/reconcile

scale: ## 2,000 drifts of every kind among 200,000 records: each found, named and repaired
	HEED_DRIFT=200000 go test -count=1 -timeout 20m -run TestOnePassFinds -v ./sync/reconcile

million: ## a nightly pass over 1,000,000 records against 1,000,000 opted-out numbers, beside an ideal pipeline
	go test -run '^$$' -bench MillionPass -benchtime 1x -timeout 30m ./cmd/heed

evidence: ## a packet with every byte flipped, and one of 100,000 events
	HEED_EVIDENCE_FLIP=all HEED_EVIDENCE_EVENTS=100000 go test -count=1 -timeout 20m -run 'Flipped|Memory' -v ./connector/evidence

export: ## a list of 1,000,000 numbers in each format: time and memory
	HEED_EXPORT_ROWS=1000000 go test -count=1 -run TestALongListIsWritten -v ./connector/export

salesforce: ## put the OpenAPI document into the Salesforce package
	deploy/salesforce/build.sh

fuzz: ## a minute on each fuzz target
	@for p in $$(grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u); do \
	  for f in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' $$p/*_test.go | sed 's/func //'); do \
	    go test -run '^$$' -fuzz "^$$f$$" -fuzztime 60s $$p || exit 1; done; done

screenshots: ## each screen of the admin page, light, dark and on a telephone, in dist/screens
	HEED_SCREENSHOTS=$(CURDIR)/dist/screens go test -count=1 -timeout 10m -run TestScreens -v ./connector/admin

build: ## a static binary in dist/
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o dist/heed ./cmd/heed

.PHONY: help demo demo-exit test race lint check bench crash scale million salesforce screenshots fuzz evidence export build
