# The targets below are all there is to know; `make help` prints them.
#
# demo, test and bench need a MariaDB or MySQL server. They start a private one, in a temporary
# folder and on loopback, and install MariaDB with the machine's package manager where neither is
# installed. UNIONBRIDGE_TEST_DSN=user:password@tcp(host:3306)/ uses an existing server instead; its
# user must be allowed to create schemas, users and roles. SERVER=mysql, mariadb, tidb or the path of
# a server's program starts another private one: tools/servers/fetch downloads or builds it.

SHELL := /bin/bash
GO    ?= go

# git is asked here and not by go build, which fails in a checkout that belongs to another user.
export GOFLAGS := $(GOFLAGS) -buildvcs=false
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null)
LDFLAGS := -X main.version=$(VERSION) -X main.commit=$(COMMIT)

# Built and then run, since go run turns every exit code into 1.
TOOL = $(GO) build -o bin/ ./internal/devtools/$(1) && exec bin/$(1)
PRIVATEDB = $(ON_SERVER) $(call TOOL,privatedb)
SERVER ?=
ON_SERVER = $(if $(SERVER),UNIONBRIDGE_TEST_SERVER=$$(tools/servers/fetch $(SERVER)) && \
	export UNIONBRIDGE_TEST_SERVER &&)
# What the phrases of tools/prose.txt are looked for in.
PROSE = $(addprefix --include=,*.go *.txtar *.md *.sql *.yaml *.yml *.service Makefile)
# Pinned in a module of its own, so that the product's go.mod stays short.
LINTER := $(GO) tool -modfile=tools/go.mod golangci-lint

# What `make test` hands to go test: TEST='-race -run Lease ./internal/database/...' make test
TEST ?= ./...
# What `make demo`, `make bench` and `make chaos` hand to their programs.
ARGS ?=
# How many rounds `make chaos` plays; empty: each kind once. ROUNDS=55 takes about an hour.
ROUNDS ?=

# The clients of test-sdk: a Go module and an npm package of their own.
SDKTEST = internal/web/compat/sdktest

# The packages that speak SQL.
SQL = ./internal/database ./bridge/... ./sync/... ./sender/...

.DEFAULT_GOAL := help
.PHONY: help build demo test test-mysql test-mariadb11 test-tidb test-galera race lint prose
.PHONY: bench chaos window nightly clean test-sdk

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build bin/unionbridge and bin/wechatsim
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/unionbridge ./cmd/wechatsim

demo: ## Show it all at work: private database, simulated WeChat, the real daemon
	@$(ON_SERVER) $(call TOOL,demo) $(ARGS)

test: ## Run all tests on a private database, each in its own schema
	@$(PRIVATEDB) -- $(GO) test -count=1 -timeout 20m $(TEST)

# A server's own collation is what a schema has where nobody thought of it.
define TEST_ON
$(GO) build -o bin/ ./internal/devtools/privatedb && server=$$(tools/servers/fetch $(1)) && \
echo '$@: all on the collation of the server' && \
bin/privatedb -server "$$server" -own-collation -- $(GO) test -count=1 -timeout 20m $(TEST) && \
echo '$@: the packages that speak SQL on utf8mb4_bin' && \
exec bin/privatedb -server "$$server" -- $(GO) test -count=1 -timeout 20m $(SQL)
endef

test-mysql: ## All tests on MySQL 9.7; downloads 80 MB once, then as long as make test and a half
	@$(call TEST_ON,mysql)

test-mariadb11: ## All tests on MariaDB 11.8; downloads 30 MB once, then like test-mysql
	@$(call TEST_ON,mariadb)

test-tidb: ## Tests of what speaks SQL on TiDB; builds it once, 3 to 20 minutes, then as long again
	@$(GO) build -o bin/ ./internal/devtools/privatedb && server=$$(tools/servers/fetch tidb) && \
	exec bin/privatedb -server "$$server" -- $(GO) test -count=1 -timeout 60m $(SQL)

# Each part runs, whatever became of those before it.
NIGHTLY = test-mariadb11 test-tidb test-galera test-sdk chaos window race

nightly: ## All that .ci/run leaves out: the other servers, Galera, chaos, the race detector
	@failed=0; results=; for target in $(NIGHTLY); do \
		echo "nightly: make $$target"; began=$$SECONDS; result=passed; \
		$(MAKE) $$target || { result=FAILED; failed=1; }; \
		results+=$$(printf 'nightly: %-14s %s after %d s' $$target $$result $$((SECONDS - began)))$$'\n'; \
	done; printf '%s' "$$results"; exit $$failed

race: ## All tests with the race detector, several times slower
	@$(PRIVATEDB) -- $(GO) test -count=1 -race -timeout 60m $(TEST)

lint: prose ## Check formatting, words, go vet and the chosen linters (.golangci.yml)
	@unformatted=$$(gofmt -l $$($(GO) list -f '{{.Dir}}' ./...)); \
	if [ -n "$$unformatted" ]; then printf 'not formatted, run gofmt -w:\n%s\n' "$$unformatted" >&2; exit 1; fi
	$(GO) vet ./...
	$(LINTER) run ./...

# grep's 0 is a find, 1 is none, 2 is an error of its own.
prose:
	@grep -rnIiE -f <(grep -v '^#' tools/prose.txt) $(PROSE) --exclude-dir={.git,.dev,bin,node_modules} . >&2; \
	case $$? in 0) echo 'write it as tools/prose.txt says' >&2; exit 1 ;; 1) ;; *) exit 2 ;; esac

test-sdk: ## Real WeChat SDKs, in Go and from npm, through the doors; installs Node.js where it is missing
	@command -v npm >/dev/null || { echo 'installing Node.js with the package manager'; apt-get install -y nodejs npm >/dev/null; }
	cd $(SDKTEST) && npm ci --no-audit --no-fund
	@mkdir -p bin && $(GO) build -C $(SDKTEST) -o $(CURDIR)/bin/sdktest .
	@export UNIONBRIDGE_SDKTEST=$(CURDIR)/bin; $(PRIVATEDB) -- $(GO) test -count=1 -tags sdk -run TestSDKs ./cmd/unionbridge

bench: ## Measure; prints a table and a line "name value unit target ok|short" per figure
	@$(GO) build -o bin/ ./internal/devtools/bench
	@$(PRIVATEDB) -buffer-pool 512 -- bin/bench $(ARGS)

# Five rounds of each kind kill the daemon 500 times; docs/reliability.md has the figures of a long run.
chaos: ## Break everything around the real daemon, repair it, and compare rows with messages; ROUNDS=n
	@$(GO) build -o bin/ ./internal/devtools/chaos
	@$(PRIVATEDB) -buffer-pool 256 -- bin/chaos $(if $(ROUNDS),-rounds $(ROUNDS)) $(ARGS)

# Twenty rounds restart the daemon on both sides of the window's end.
window: ## 20 restarts as the resend window ends, five minutes; ROUNDS=1 ARGS=-real: at real length
	@$(GO) build -o bin/ ./internal/devtools/chaos
	@$(PRIVATEDB) -- bin/chaos -only window -rounds $(or $(ROUNDS),20) -parallel 5 $(ARGS)

clean: ## Remove what was built and the data of .dev
	rm -rf bin .dev

# Installs galera-4, mariadb-backup and socat with apt-get where they are missing. Under ten minutes.
test-galera: ## Database tests and a sweep on three Galera nodes, one of which is killed
	@$(call TOOL,galera) $(ARGS)
