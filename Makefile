# What can be done with this tree. Longer work is in scripts/.

PREFIX ?= /usr/local
DESTDIR ?=
export PREFIX DESTDIR

.PHONY: help run build release test fuzz lint bench install uninstall clean

help:
	@echo 'make run        build, then boot a Linux guest and run a command in it'
	@echo 'make test       build and run every test (RUNGS="unit bus" for some)'
	@echo 'make fuzz       search for inputs that parsers fail on, each for SECONDS (600)'
	@echo 'make lint       formatting, clippy, licences, shell scripts, house rules'
	@echo 'make bench      measure, print the table of docs/performance.md'
	@echo 'make build      debug build in target/debug; make release: target/release'
	@echo 'make install    PREFIX=/usr/local DESTDIR=; make uninstall takes it back'
	@echo 'make clean      remove what was built'

run:
	scripts/install-deps run
	scripts/build release
	scripts/run

build:
	scripts/build debug

release:
	scripts/build release

test:
	scripts/install-deps test
	scripts/test $(RUNGS)

fuzz:
	scripts/install-deps test
	scripts/fuzz $(or $(SECONDS),600)

lint:
	scripts/install-deps lint
	scripts/lint

bench:
	scripts/install-deps test
	scripts/build release
	scripts/bench

install:
	scripts/build release
	scripts/install

uninstall:
	scripts/uninstall

clean:
	cargo clean
