# Everything lives in .venv, made with the system's Python; PYTHON=/path/to/python3 chooses another one.
# KERNELS=pure leaves the kernels uncompiled.
PYTHON ?= $(or $(wildcard /usr/bin/python3),python3)
KERNELS ?= compiled
TRACKER ?= embedded
export PYTHON KERNELS

# A kernel is a .py with a .pxd beside it.
KERNEL_TYPES := $(filter-out gateway/system.pxd shard/prefetch.pxd,$(wildcard gateway/*.pxd shard/*.pxd loadtests/load/*.pxd))
SOURCES := pyproject.toml common/build.py $(KERNEL_TYPES) $(KERNEL_TYPES:.pxd=.py)
INSTALLED := .venv/.installed-$(KERNELS)
TESTABLE := .venv/.testable

run: $(INSTALLED)
	@.venv/bin/shoal up $(ARGS)

test: $(INSTALLED) $(TESTABLE)
	@tools/need aria2 transmission-daemon nginx-light curl iproute2 nftables dropbear-bin openssh-client
	@.venv/bin/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: $(INSTALLED) .venv/.benchable
	@tools/need opentracker wrk
	@.venv/bin/python -P -m loadtests.bench $(ARGS)

compare: $(INSTALLED) .venv/.benchable
	@tools/need opentracker wrk gcc
	@.venv/bin/python -P -m loadtests.compare $(ARGS)

load: $(INSTALLED) .venv/.loadable
	@.venv/bin/python -P -m loadtests.load.run $(SCENARIO) --tracker $(TRACKER) $(ARGS)

load-web: $(INSTALLED) .venv/.loadable
	@.venv/bin/python -P -m loadtests.load.run $(SCENARIO) --tracker $(TRACKER) --web $(ARGS)

simulate: $(INSTALLED) $(TESTABLE)
	@PYTHONPATH=tests:tests/simulation .venv/bin/python -P tests/simulation/run.py $(N) $(ARGS)

grow: $(INSTALLED) $(TESTABLE)
	@tools/need iproute2 nftables dropbear-bin openssh-client
	@GROWTH=full .venv/bin/pytest -n 0 tests/growth/test_moves.py tests/growth/test_failures.py $(ARGS)

lint: $(INSTALLED) $(TESTABLE)
	@.venv/bin/ruff check && .venv/bin/ruff format --check && .venv/bin/mypy

fuzz: $(INSTALLED) $(TESTABLE)
	@.venv/bin/python -P tests/fuzz/run.py $(ARGS)

image:
	@docker compose build

image-test:
	@tools/need buildah debootstrap iproute2
	@tools/image-test

# The install is editable: Python edits are seen at once, kernels are compiled again when they change.
$(INSTALLED): $(SOURCES)
	@tools/need python3 python3-dev python3-venv gcc make
	@tools/install
	@touch $@

$(TESTABLE): pyproject.toml | $(INSTALLED)
	@tools/install test
	@touch $@

.venv/.benchable: pyproject.toml | $(INSTALLED)
	@tools/install bench
	@touch $@

.venv/.loadable: pyproject.toml | $(INSTALLED)
	@tools/install load
	@touch $@

.PHONY: run test simulate grow bench compare load load-web lint fuzz image image-test
