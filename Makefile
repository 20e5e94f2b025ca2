# Two commands do everything: make demo, make test. The rest is for those who work on the code.
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export HF_HUB_DISABLE_TELEMETRY := 1
# Compiled modules are kept: a process that compiles torch and transformers again starts ten seconds later.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup demo test test-outside notebooks lint format lock clean
setup: $(STAMP)

# Exact versions, each checked against its hash; done again when the lock changes.
$(STAMP): requirements.lock pyproject.toml | $(BIN)/uv
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

$(BIN)/uv:
	python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

demo: setup
	$(BIN)/adapt road recipe=clip_lora
	@echo "The report is the page above. In a browser, with these models and your own pictures: $(BIN)/adapt demo recipe=clip_lora"

# Two processes of one thread each; the tests of a file stay in one of them, long files first (tests/conftest.py). Without a browser
# those of the demo are skipped.
test: setup lint
	@command -v chromium chromium-browser google-chrome >/dev/null || echo "NO BROWSER: the demo is NOT tested here. On Debian: apt-get install chromium"
	@command -v zsh >/dev/null || echo "NO ZSH: completion for zsh is NOT tested here. On Debian: apt-get install zsh"
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# What needs other packages, or more than two minutes.
test-outside: setup
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m outside

# With their outputs into build/notebooks, from where the docs take them; those that have not changed are left as they are.
notebooks: setup
	HF_HUB_OFFLINE=1 $(BIN)/python docs/render_notebooks.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Names, versions and hashes only: no address of any registry.
lock: $(BIN)/uv
	$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --no-header --no-annotate --no-emit-index-url --python-version 3.11 \
	  --extra test --extra docs --extra notebooks --extra assets pyproject.toml --output-file requirements.lock

# The moving picture of the demo, docs/demo.gif, made by the test that visits it.
.PHONY: pictures
pictures: setup
	HF_HUB_OFFLINE=1 ADAPT_PICTURES=docs $(BIN)/python -m pytest -q tests/demo/test_moving.py

# The pages of docs/ and those that are made of the code: build/docs/index.html, which needs no server and no network.
.PHONY: docs
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

clean:
	rm -rf $(VENV) runs dist build .pytest_cache .ruff_cache .hypothesis
