.DEFAULT_GOAL := help

# Without grpcnotrace gRPC's tracing links html/template, which makes the linker
# keep every exported method there is. -s -w leaves out debug information.
build: ## build the migrate command into ./bin
	go build -trimpath -tags grpcnotrace -ldflags "-s -w" -o bin/ .

test: ## run the tests
	go test ./...

test-kubernetes: ## build a kube-apiserver, once, and test the Kubernetes store against it (some minutes)
	MIGRATE_KUBERNETES=$$(go -C testdata/kubernetes run .) go test -count=1 ./pkg/discovery/kubernetes/...

test-llm: ## install llama.cpp and a small language model, once, and kill them under answers (some minutes)
	MIGRATE_LLM=$$(testdata/llm/install) LLM_EACH=1 go test -count=1 -timeout 30m -run TestLLM ./cmd

lint: ## run golangci-lint, installed on first use
	.ci/run lint

demo: ## break a stream on one server and see it migrate to another
	go run . request hello --spawn server1=always --spawn server2=never --instance server1

bench: ## compare the speed with grpc-go's and write docs/BENCHMARKS.md (some minutes)
	cd testdata/bench && go run . -write ../../docs/BENCHMARKS.md

bench-growth: ## measure how costs grow and write that part of docs/BENCHMARKS.md (some minutes)
	cd testdata/bench && go run . -growth -reps 3 -write ../../docs/BENCHMARKS.md

picture: ## draw docs/instances.svg, what `migrate instances` shows
	go run ./testdata/picture -o docs/instances.svg

cover: ## run the tests and show the coverage of each function
	go test -coverpkg=./... -coverprofile=coverage.out ./...
	go tool cover -func=coverage.out

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-16s %s\n", $$1, $$2 }' Makefile

.PHONY: build test test-kubernetes test-llm lint demo bench bench-growth picture cover help
