# make demo    the example on http://127.0.0.1:8000/
# make test    every test that this machine can run
# make lint    style and types
# make docs    the documentation, in docs/_build
# make release-check    whether a release could be tagged now; RELEASING.md
#
# Both need Python 3.10 or newer and make the virtual environment that they need. Choices, all of them optional:
#   PYTHON=python3.12            the interpreter
#   DJANGO='Django~=5.2.0'       the Django version
#   WITH=uvloop                  what is installed besides
#   CONSTRAINTS=constraints-lowest.txt    the versions that are tested with
#   ADDRESS=0.0.0.0 PORT=8080    where the example listens; for others to see it, EXAMPLE_HOSTS='a.name another' as well
#   PYTEST_ARGS='-x tests/hub'   what pytest is told besides

ADDRESS ?= 127.0.0.1
PORT ?= 8000
DJANGO ?=
WITH ?=
CONSTRAINTS ?= constraints.txt
PYTEST_ARGS ?=

# Candidates are run, not only looked for: a pyenv shim stands in PATH for versions that it then refuses to start, and some
# systems ship python3 without venv. A version that PYTHON names may also be one that pyenv keeps.
CANDIDATES := $(if $(PYTHON),\
	$(PYTHON) $(wildcard $(HOME)/.pyenv/versions/*/bin/$(notdir $(PYTHON))),\
	python3 python3.14 python3.13 python3.12 python3.11 python3.10 python \
	$(wildcard $(HOME)/.pyenv/versions/3.1[0-9]*/bin/python3))
PROBE := import ensurepip, sys, venv; v = sys.version_info; v < (3, 10) and sys.exit(1); print(sys.executable, "%d.%d" % v[:2])
FOUND := $(shell for python in $(CANDIDATES); do "$$python" -c '$(PROBE)' 2>/dev/null && break; done)
INTERPRETER := $(word 1,$(FOUND))
VERSION := $(word 2,$(FOUND))

# One environment for the example, one for each combination that is tested. The stamp is made after all is installed.
CHOICES := $(strip $(DJANGO) $(WITH) $(filter-out constraints.txt,$(CONSTRAINTS)))
TAG := $(VERSION)$(if $(CHOICES),-$(shell printf %s '$(CHOICES)' | tr -cs 'A-Za-z0-9.' '-'))
DEMO_VENV := .venv
TEST_VENV := .venv-test-$(TAG)
DEMO_STAMP := $(DEMO_VENV)/.installed-$(TAG)
TEST_STAMP := $(TEST_VENV)/.installed-$(TAG)
DOCS_STAMP := $(TEST_VENV)/.installed-docs

JS_TESTS = $(wildcard tests/js/*.test.js tests/js/*.test.mjs)
JS_STAMP := tests/js/node_modules/.installed

.PHONY: help demo test lint docs environment release-check clean python

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

demo: $(DEMO_STAMP)
	@EXAMPLE_ADDRESS='$(ADDRESS)' $(DEMO_VENV)/bin/python example_project/manage.py seed
	@EXAMPLE_ADDRESS='$(ADDRESS)' exec $(DEMO_VENV)/bin/python example_project/manage.py runserver --noreload --insecure $(ADDRESS):$(PORT)

test: $(TEST_STAMP) $(JS_STAMP)
	@status=0; \
	if [ -z '$(JS_TESTS)' ]; then \
		:; \
	elif command -v node >/dev/null; then \
		node --test $(JS_TESTS) || status=1; \
	else \
		echo 'missing: node: the JavaScript tests are skipped (Debian: apt-get install nodejs)'; \
		[ "$${SSE_LIVE_REQUIRE_TOOLS:-0}" = 0 ] || status=1; \
	fi; \
	$(TEST_VENV)/bin/python -m pytest $(PYTEST_ARGS) || status=1; \
	exit $$status

lint: $(TEST_STAMP)
	$(TEST_VENV)/bin/ruff check
	$(TEST_VENV)/bin/ruff format --check
	$(TEST_VENV)/bin/mypy
	PYTHONPATH='$(CURDIR)' PATH="$(abspath $(TEST_VENV))/bin:$$PATH" pyright --verifytypes django_sse_live --ignoreexternal

docs: $(DOCS_STAMP)
	$(TEST_VENV)/bin/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet docs docs/_build
	$(TEST_VENV)/bin/python -m pytest -q tests/docs/test_site.py
	@echo 'The documentation is in docs/_build/index.html.'

environment: $(DOCS_STAMP)

release-check: $(TEST_STAMP)
	@$(TEST_VENV)/bin/python .ci/release_check.py

clean:
	rm -rf .venv .venv-test-* tests/js/node_modules build dist docs/_build *.egg-info example_project/db.sqlite3* example_project/staticfiles

$(DEMO_STAMP): EXTRAS := channels
$(TEST_STAMP): EXTRAS := test
$(DEMO_STAMP) $(TEST_STAMP): setup.cfg pyproject.toml $(CONSTRAINTS) | python
	@echo 'Python $(VERSION) ($(INTERPRETER)): installing what is needed into $(@D), once.'
	@"$(INTERPRETER)" -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install -qq --disable-pip-version-check --constraint $(CONSTRAINTS) --editable '.[$(EXTRAS)]' $(if $(DJANGO),'$(DJANGO)') $(WITH)
	@touch $@

$(DOCS_STAMP): $(TEST_STAMP)
	@$(TEST_VENV)/bin/python -m pip install -qq --disable-pip-version-check --editable '.[docs]'
	@touch $@

# Other SSE libraries, to be tried with: without npm or a network, the tests that need one are skipped, by name.
$(JS_STAMP): tests/js/package.json
	@if command -v npm >/dev/null && npm install --prefix $(<D) --silent --no-audit --no-fund \
		&& npm install --prefix $(<D)/spa --silent --no-audit --no-fund; then touch $@; fi

python:
	@[ -n '$(INTERPRETER)' ] || { \
		echo 'No Python 3.10 or newer with venv and ensurepip among: $(strip $(CANDIDATES)).' >&2; \
		echo 'Install one (Debian: apt-get install python3-venv), or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)' >&2; \
		exit 1; \
	}
