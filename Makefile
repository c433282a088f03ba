# Each target sets up all it needs; a second run installs nothing. Needs Python 3.11 or 3.12 alone.
# pip's own settings work as ever: PIP_PROXY, PIP_INDEX_URL, PIP_FIND_LINKS=folder-of-wheels, ...
# Another interpreter: make app PYTHON=/path/to/python3.12. More for pytest: make test ARGS="-m slow".

PYTHON ?= $(shell for p in python3.11 python3.12 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
	>/dev/null 2>&1 && echo $$p && break; done)
ARGS ?=
VENV := .venv
PARITY := .venv-parity
MAKE_VENV = @test -n "$(PYTHON)" || \
	{ echo "Python 3.11 or 3.12 is needed; name it with PYTHON=/path/to/python" >&2; exit 1; }; \
	set -x; $(PYTHON) -m venv

.PHONY: help app test lint parity federation space clean

help:
	@echo "make app     opens the app in the browser"
	@echo "make test    runs the tests (those that read real scans need MEDFEDPURE_DATA)"
	@echo "make lint    checks style and types"
	@echo "make parity  compares the attacks with their authors' code, in an environment of its own"
	@echo "make federation  three hospitals over TLS on this machine (needs MEDFEDPURE_DATA)"
	@echo "make space   assembles build/space, what is uploaded as a Space, and opens it once"
	@echo "make clean   removes the environments and caches"

app: $(VENV)/.installed
	$(VENV)/bin/python app.py $(ARGS)

test: $(VENV)/.installed-dev
	$(VENV)/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

parity: $(PARITY)/.installed
	$(PARITY)/bin/python -m pytest tests/parity $(ARGS)

federation: $(VENV)/.installed-dev
	$(VENV)/bin/python -m train federated --preset loopback --protocol paper --runtime deployment $(ARGS)

space: $(VENV)/.installed
	$(VENV)/bin/python -m tools.build_space build/space --run

clean:
	rm -rf $(VENV) $(PARITY) .pytest_cache .mypy_cache .ruff_cache *.egg-info build
	find core train bench demo tools tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	$(MAKE_VENV) $(VENV)

$(VENV)/.installed: requirements.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed pyproject.toml
	$(VENV)/bin/python -m pip install -c requirements.txt -e '.[simulation,dev]'
	@touch $@

$(PARITY)/bin/python:
	$(MAKE_VENV) $(PARITY)

# torchattacks pins an old requests, which the app's packages refuse; adv-lib's visdom is built from
# source, with a part of setuptools that newer ones have dropped
$(PARITY)/.installed: requirements.txt | $(PARITY)/bin/python
	$(PARITY)/bin/python -m pip install 'setuptools<81' wheel
	$(PARITY)/bin/python -m pip install --no-build-isolation -c requirements.txt \
		torch torchvision timm numpy pillow safetensors pytest \
		torchattacks==3.5.1 pyautoattack==0.2.0 adv-lib==0.2.8
	@touch $@
