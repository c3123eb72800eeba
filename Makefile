# `make demo` shows what this is; `make test` says whether it works. `make help` lists the rest.

RELEASE := --configuration release --scratch-path .build-release
FORMATTED := Sources Tests Benchmarks Examples Package.swift

.PHONY: all help build demo test bench attack hot-paths tsan soak fuzz format lint clean image image-test host-test browser-test dist chart deploy-test

all: build

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 13

build: ## a debug build of everything
	@scripts/deps build
	swift build --build-tests

demo: ## the daemon on a real image; IMAGE=DIR takes an OCI layout, ARGS=--exit ends by itself
	@scripts/demo $(if $(IMAGE),--image "$(IMAGE)") $(ARGS)

test: ## dependencies, lint, build and every test, from a clean clone
	@scripts/test

bench: ## benchmarks: a short overview, or ARGS="serve mirror --against PROGRAM"
	@scripts/deps bench
	swift run $(RELEASE) Benchmarks $(ARGS)

attack: ## honest nodes beside hostile machines; ARGS="--old PROGRAM --attack NAME…"
	@scripts/deps bench
	swift run $(RELEASE) Benchmarks attack $(ARGS)

hot-paths: ## instructions and allocations for each request, beside the table Benchmarks/hot-paths.json; ARGS=--write replaces it
	@scripts/deps hot-paths
	swift run $(RELEASE) Benchmarks hot-path $(ARGS)

tsan: ## the tests under ThreadSanitizer; ARGS="--filter NAME" narrows them
	@scripts/deps test
	TSAN_OPTIONS="suppressions=$(CURDIR)/Tests/tsan-suppressions" swift test --sanitize=thread --scratch-path .build-tsan $(ARGS)

ifdef DURATION
soak: ## DURATION=60m: load and seeded faults on a cluster; else each test module again and again, ROUNDS=N (20), MODULES="A B", STALLS=1
	@scripts/deps bench
	swift run $(RELEASE) Benchmarks soak --duration $(DURATION) $(if $(SEED),--seed $(SEED)) $(ARGS)
else
soak:
	@scripts/deps test
	@scripts/progress .build/soak-build.log swift build --build-tests
	@$(if $(STALLS),STALLS=1) scripts/soak $(or $(ROUNDS),20) "$(MODULES)" $(ARGS)
endif

fuzz: ## the fuzz targets; ARGS go to scripts/fuzz
	@scripts/deps build
	scripts/fuzz $(ARGS)

image: ## the container image as an OCI layout, .build-image/spegel; ARGS go to scripts/image
	@scripts/image $(ARGS)

image-test: ## the deployment tests with the image of `make image`
	@scripts/deps test
	SPEGEL_TEST_IMAGE=$(CURDIR)/.build-image/spegel Tests/deploy/run test_image.py test_pods.py

host-test: ## docs/install-systemd.md on two hosts that boot Debian's systemd, with the program of `make dist`
	@scripts/deps test
	SPEGEL_TEST_DEBIAN_ROOT=$$(scripts/debian-root) SPEGEL_TEST_PROGRAM=$$(scripts/static-program) Tests/deploy/run test_install_page.py $(ARGS)

browser-test: build ## the debug page of three nodes, used in headless Chromium (360 MB of packages)
	@scripts/deps browser
	scripts/debug-page-test .build/debug/spegel $(ARGS)

dist: ## a tarball with units, manual pages and completions, the packaged chart, and checksums, in .build-dist
	@scripts/dist $(ARGS)

chart: ## writes what is made from the chart: its table of values, goldens, kustomize's objects
	@scripts/chart generate

deploy-test: ## chart, kustomize, units, image writer; ARGS go to pytest
	@scripts/deps test
	Tests/deploy/run $(ARGS)

format: ## rewrites the sources in the project's style
	swift format --in-place --recursive --parallel $(wildcard $(FORMATTED))

lint: ## checks the style
	swift format lint --strict --recursive --parallel $(wildcard $(FORMATTED))

clean: ## removes what was built
	rm -rf .build .build-*
