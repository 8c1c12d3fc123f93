# What there is to do here. `make` alone lists it.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help up down status test lint unit it bench policies hostile torture model sim mutants deny sbom image fuzz generate pictures doc clean tools

# rustup puts cargo here, and a new machine's PATH may not know yet.
export PATH := $(HOME)/.cargo/bin:$(PATH)
CARGO ?= cargo
# --locked: exactly what Cargo.lock says. `make LOCKED= …` while dependencies are changed.
LOCKED ?= --locked
# The small crates that have to build without what the others switch on: cargo unites features in a build of everything.
# konductor-policy is left out, since it would compile wasmtime once more.
ALONE := konductor-core konductor-crds konductor-policy-abi konductor-policy-sdk konductor-policy-default
# One runner for all tests: nextest if there is one, else cargo's own.
NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)
define run_tests
	$(if $(NEXTEST),$(CARGO) nextest run $(LOCKED) --no-fail-fast $(1),$(CARGO) test $(LOCKED) --no-fail-fast $(1))
endef
# A comma for an argument of call.
, := ,
say = @printf '\n==> %s\n' '$(1)'

help: ## list this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: tools ## a control plane on this machine, with the controller, a few leases, and one hand-over to see
	$(call say,the controller and koncli (the first time takes some minutes))
	@$(CARGO) build $(LOCKED) -p konductor-controller -p koncli -p konductor-tests --bins
	@$(CARGO) run $(LOCKED) -q -p konductor-tests --bin konductor-dev -- up

down: ## stop it and delete its data
	@$(CARGO) run $(LOCKED) -q -p konductor-tests --bin konductor-dev -- down

status: ## say what of it runs
	@$(CARGO) run $(LOCKED) -q -p konductor-tests --bin konductor-dev -- status

test: tools ## everything: lint, each crate alone, unit and integration tests, doctests
	@$(MAKE) lint
	$(call say,each crate builds alone)
	@for crate in $(ALONE); do $(CARGO) check $(LOCKED) -q -p "$$crate"; done
	$(call say,the binaries of a control plane$(,) Helm and Prometheus)
	@tests/control-plane/assets >/dev/null
	@tests/tools/assets >/dev/null
	@$(MAKE) policies
	$(call say,build)
	@# With the tests and not before them: so the binaries share what is compiled for the tests.
	@$(CARGO) build $(LOCKED) --workspace --lib --bins --examples --tests
	$(call say,$(if $(NEXTEST),unit and integration tests,unit and integration tests (cargo nextest is not installed: cargo test)))
	@$(call run_tests,--workspace $(if $(NEXTEST),,--lib --bins --tests))
	$(call say,spans to a collector: the feature otlp of the controller$(,) which nothing else is built with)
	@# With --workspace for the same features of everything else; the program itself is not built, so it stays without.
	@$(CARGO) test $(LOCKED) -q --workspace --features konductor-controller/otlp --lib -- otlp::
	$(call say,doctests)
	@$(CARGO) test $(LOCKED) -q --workspace --doc

lint: tools ## formatting, clippy and rustdoc, warnings are errors
	$(call say,formatting)
	@$(CARGO) fmt --all --check
	$(call say,clippy)
	@$(CARGO) clippy $(LOCKED) --workspace --all-targets -- -D warnings
	$(call say,rustdoc)
	@RUSTDOCFLAGS='-D warnings' $(CARGO) doc $(LOCKED) --workspace --no-deps

# Always --workspace: with -p cargo would compile the dependencies once more, with fewer features.
unit: tools ## unit and property tests only, without a control plane
	@$(call run_tests,--workspace $(if $(NEXTEST),-E 'not (package(konductor-tests) and kind(test))',--lib --bins))

it: tools ## the tests on real control planes; T=name runs those whose name contains it
	@tests/control-plane/assets >/dev/null
	@tests/tools/assets >/dev/null
	@$(CARGO) build $(LOCKED) --workspace --lib --bins --examples --tests
	@$(call run_tests,--workspace $(if $(NEXTEST),-E 'package(konductor-tests) and kind(test)',--test it) $(T))

bench: tools ## what a decision, an acquire, a renewal and a hand-over cost, as ratios
	@tests/control-plane/assets >/dev/null
	$(call say,build (the first time takes some minutes))
	@# --workspace everywhere: what is selected decides which features are compiled.
	@$(CARGO) build $(LOCKED) --release --workspace --lib --bins --benches
	$(call say,a policy call: the same rules natively and in a fresh sandbox)
	@$(CARGO) bench $(LOCKED) --workspace --bench decide
	$(call say,acquire$(,) renew and hand-over: through the controller and on the API server alone)
	@$(CARGO) bench $(LOCKED) --workspace --bench latency

# New seeds each time, unless SEED is given. The corpus grows under target/fuzz; a failing input is kept beside it.
SECONDS_PER_TARGET ?= 60
SEED ?= $(shell date +%s)
fuzz: tools ## fuzz the sandbox by coverage: what guests answer, what is uploaded, what is asked; SECONDS_PER_TARGET=60
	$(call say,build (the first time takes some minutes; libFuzzer needs a C++ compiler))
	@$(CARGO) build $(LOCKED) --workspace --bin konductor-fuzz
	@RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/controller/policy/fuzz/instrumented $(CARGO) build $(LOCKED) --workspace \
		--features konductor-policy-fuzz/coverage --bin fuzz-answer --bin fuzz-module --bin fuzz-input
	@controller/policy/fuzz/run $(SECONDS_PER_TARGET) $(SEED)

# The same faults in the same order for the same SEED; when each comes depends on the machine.
MINUTES ?= 5
torture: tools ## real processes under random faults, judged afterwards; MINUTES=5 SEED=… MUTANT=…
	@tests/control-plane/assets >/dev/null
	@$(CARGO) build $(LOCKED) --workspace --lib --bins
	@MINUTES=$(MINUTES) SEED=$(SEED) MUTANT=$(MUTANT) target/debug/konductor-torture

# One seed is told in full; of many, the first that fails. MUTANT breaks something on purpose.
SEEDS ?= 4000
FROM ?= 1
sim: SEED =
sim: tools ## simulate controllers and clients in virtual time, with faults; SEEDS=4000 FROM=1, or one: SEED=17
	@$(CARGO) build $(LOCKED) --workspace --bin konductor-sim
	@target/debug/konductor-sim $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) --from $(FROM)) $(if $(MUTANT),--mutant $(MUTANT))

hostile: tools ## every hostile policy against the real controller: case, expected, got; and what it costs others
	@tests/control-plane/assets >/dev/null
	@$(CARGO) build $(LOCKED) --workspace --lib --bins
	@target/debug/konductor-hostile

# The configurations of the tests are smaller. The number of states is the result; what is known and open is listed.
model: tools ## every state of the protocol for small sizes, with stale caches, lost writes and any policy; some minutes
	@$(CARGO) build $(LOCKED) --workspace --bin konductor-model
	@target/debug/konductor-model

# ADVISORIES=no where the database of vulnerabilities cannot be fetched.
deny: tools ## licences, duplicates, sources and known vulnerabilities of what we depend on; see deny.toml
	@hack/supply-chain deny

sbom: tools ## what is in each program that is shipped, as CycloneDX, into target/sbom
	@hack/supply-chain sbom

# PROGRAMS=target/debug: a quick try with programs that are there already.
image: tools ## the image of deploy/Dockerfile without a container engine, started once, as an OCI archive in target/image
	@hack/image $(PROGRAMS)

# RE=renewed: only the mutants whose name matches. AREA="core client": only those.
AREA ?=
mutants: tools ## put defects into the code that decides, see that tests find each; an hour; AREA=core RE=renewed
	@RE='$(RE)' hack/mutants $(AREA)

policies: tools ## every policy of the library, in four languages, into target/policies; prints sizes and digests
	$(call say,the library of policies)
	@$(CARGO) run $(LOCKED) -q -p konductor-policy-library

generate: tools ## crds/*.yaml, the JSON Schemas, docs/reference, from types and programs; what the chart carries
	@$(CARGO) run $(LOCKED) -q -p konductor-crds --bin crdgen -- crds
	@$(CARGO) run $(LOCKED) -q -p konductor-policy-abi --features schema --example schemagen
	@deploy/generate
	@$(CARGO) build $(LOCKED) -q --workspace --bins
	@target/debug/konductor-book reference

pictures: tools ## docs/pictures: scenarios in virtual time, and terminals on a real control plane
	@tests/control-plane/assets >/dev/null
	@$(CARGO) build $(LOCKED) -q --workspace --bins
	@target/debug/konductor-book pictures

doc: tools ## the API documentation, in target/doc
	@$(CARGO) doc $(LOCKED) --workspace --no-deps

clean: ## stop the control plane, delete everything that was built
	@if [ -d .konductor ]; then $(MAKE) down; fi
	@$(CARGO) clean

tools: ## install what a build needs and this machine lacks
	@hack/tools
