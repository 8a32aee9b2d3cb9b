# SPDX-License-Identifier: GPL-2.0-or-later
# `make help` lists the targets by who calls them: `##@` begins a group, `##` describes a target.

PYTHON = /usr/bin/python3
DESTDIR =
UNITS = /usr/lib/systemd/system
ARCHES = x86_64 i386 aarch64 arm ppc64 riscv64 s390x
TOOLS = build/tools/bin
RUNS = 30
# Another release of Debian to run a target on: bookworm, trixie.
RELEASE =

.PHONY: help deb install uninstall demo test test-release test-unit test-libvirt test-package
.PHONY: clients clients-ci needs-clients needs-clients-ci
.PHONY: deb-source piuparts test-appliance corpus chaos appliance fuzz lint bench picture needs needs-tests tools clean

help:
	@awk -F ':.*## ' '/^##@ /{print (n++ ? "\n" : "") substr($$0, 5)} \
		/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Admins

install: ## install virt-warden on this host; then enrol domains: virt-warden enrol
	PYTHON=$(PYTHON) DESTDIR=$(DESTDIR) ARCHES="$(ARCHES)" UNITS=$(UNITS) packaging/install.sh

uninstall: ## unenrol every domain and remove virt-warden from this host
	packaging/uninstall.sh

ifneq ($(RELEASE),)

demo test test-release test-unit test-libvirt test-package clients clients-ci chaos bench corpus:
	packaging/needs.sh release
	$(PYTHON) -B -m tests.debian $(RELEASE) make $@ $(filter-out RELEASE=%,$(MAKEOVERRIDES))

else

demo: needs ## see what the product does, with two VMs in their own namespaces
	$(PYTHON) -B -m tests.host -- $(PYTHON) -B -m demo

##@ Developers

test: needs-tests test-unit ## all tests but those on a booted host; AGAIN=1 runs what fails once more
	$(PYTHON) -B -m tests $(if $(AGAIN),--again)

test-release: needs-tests test-unit ## the tests that depend on the release of Debian
	$(PYTHON) -B -m tests --by-release $(if $(AGAIN),--again)

test-unit: ## fast, and needs neither root nor libvirt
	$(PYTHON) -B -m pytest tests/unit

test-libvirt: ## tests with a real libvirtd, QEMU and kernel, in their own namespaces
	$(PYTHON) -B -m tests.libvirt

clients: needs-clients ## VMs made by the programs of docs/clients.md, each in its cell
	$(PYTHON) -B -m tests.clients

clients-ci: needs-clients-ci # the part that CI has time for
	$(PYTHON) -B -m tests.clients --ci $(if $(AGAIN),--again)

chaos: needs-tests ## random starts, stops, kills and full disks; SECONDS=600 SEED=… DEEDS=200
	$(PYTHON) -B -m tests.host -- $(PYTHON) -B -m tests.chaos \
		--seconds $(or $(SECONDS),600) --deeds $(or $(DEEDS),200) $(if $(SEED),--seed $(SEED))

bench: needs-tests ## measure what a start and a frame cost; RUNS=5 is quick
	$(PYTHON) -B -m tests.host -- $(PYTHON) -B -m bench.start --runs $(RUNS)
	$(PYTHON) -B -m tests.host -- $(PYTHON) -B -m bench.many
	$(PYTHON) -B -m tests.host -- $(PYTHON) -B -m bench.frames
	$(PYTHON) -B -m tests.host -- $(PYTHON) -B -m bench.inject
	$(PYTHON) -B -m tests.host -- $(PYTHON) -B -m bench.heal

corpus: needs-tests ## libvirt's own domains and command lines, fetched by apt, through all that reads them
	mkdir -p build/corpus
	$(PYTHON) -B -m tests.corpus

endif

fuzz: build/fuzz/.done ## fuzz the parsers of untrusted input; FUZZ_SECONDS=60 each
	for parser in xml policy; do \
		build/fuzz/bin/python -B -m tests.fuzz.$$parser -artifact_prefix=build/ \
			-max_total_time=$(or $(FUZZ_SECONDS),60) || exit 1; done

build/fuzz/.done: packaging/fuzz-requirements.txt
	$(PYTHON) -m venv --system-site-packages build/fuzz
	build/fuzz/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

test-appliance: deb ## tests on a booted Debian host with the .deb; ALL=1 for every scenario
	$(PYTHON) -B -m tests.appliance $(if $(ALL),--all) $(if $(AGAIN),--again) $(if $(DEBIAN),--debian $(DEBIAN))

appliance: deb ## the disk image for test-appliance, if it is missing
	$(PYTHON) -B -m tests.appliance --images $(if $(DEBIAN),--debian $(DEBIAN))

lint: tools ## ruff, mypy and shellcheck
	$(TOOLS)/ruff check .
	$(TOOLS)/ruff format --check .
	$(TOOLS)/mypy virtwarden hooks/qemu.py wrapper/*.py packaging/man/keys.py
	$(TOOLS)/mypy hooks/farewell.py
	$(TOOLS)/mypy -p tests.host -p tests.debian -p tests.package -p tests.appliance -m tests.files -p demo -p bench
	MYPYPATH=tests/unit $(TOOLS)/mypy -p tests.corpus
	shellcheck packaging/*.sh packaging/notify/mail packaging/man/*.sh packaging/completion.bash hooks/farewell.sh
	shellcheck tests/appliance/image/* tests/debian/enter
	shellcheck packaging/debian/virt-warden.p* packaging/debian/tests/demo

needs: # what a fresh Debian lacks
	packaging/needs.sh

needs-tests: # and what its tests need
	packaging/needs.sh tests

needs-clients: # and what makes VMs in `make clients`
	packaging/needs.sh clients

needs-clients-ci: # and in `make clients-ci`
	packaging/needs.sh clients-ci

tools: build/tools/.done

build/tools/.done: packaging/lint-requirements.txt
	$(PYTHON) -m venv --system-site-packages build/tools
	build/tools/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

picture: needs ## docs/demo.svg, out of a run of the demo
	$(PYTHON) -B -m tests.host -- $(PYTHON) -B -m demo.picture docs/demo.svg

clean: ## remove what `make` made
	rm -rf build

##@ Packagers

deb: needs ## build/deb/virt-warden_VERSION_all.deb
	packaging/deb.sh

deb-source: needs ## the Debian source package beside it, as it is uploaded
	packaging/deb.sh build/deb full

piuparts: ## the package, installed, removed and purged by piuparts on Debian 13; RELEASE=bookworm
	packaging/needs.sh release
	$(PYTHON) -B -m tests.debian $(or $(RELEASE),trixie) packaging/piuparts.sh

ifeq ($(RELEASE),)

test-package: ## the Debian package, installed, upgraded, removed and purged with VMs running
	$(PYTHON) -B -m tests.host -- $(PYTHON) -B -m pytest tests/package

endif
