# make demo: see it work.  make test: check it.  Each sets up what it needs in $(VENV), from the package registry.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
RUN := runs/demo-$(shell date +%Y%m%d-%H%M%S)
TRAIN ?= runs/demo-train-$(shell date +%Y%m%d-%H%M%S)
SEED ?= 0
# Tests side by side: one for each core.
JOBS ?= auto
ONE_STEP := --set env.level=easy,medium

.PHONY: demo demo-train test test-extras test-trainers check bench docs clean

demo: $(VENV)/core
	@echo "A small policy tries calculator tasks, 8 times each; a verifier scores every attempt. No network, no key, no GPU."
	@echo
	$(BIN)/rollforge collect arithmetic --model tiny --limit 100 --repeats 8 --temperature 1 --out $(RUN)
	@echo
	$(BIN)/rollforge stats $(RUN)
	@echo
	$(BIN)/rollforge show $(RUN) --best --worst
	@echo
	@echo "Rollouts become training data: duplicates out, a split without leaks, then four trainers' formats, each checked."
	@echo
	$(BIN)/rollforge curate $(RUN) --dedup both --split 90/10 --out $(RUN)/data
	@echo
	$(BIN)/rollforge export $(RUN)/data --to nemo-rl:grpo --to trl:sft --to verl:grpo --to openrlhf:dpo --out $(RUN)/training
	@echo
	$(BIN)/rollforge check $(RUN)/training --tokenizer tiny
	@echo
	@echo "One row as the model will read it, and what of it is trained on:"
	@echo
	$(BIN)/rollforge check $(RUN)/training/openrlhf-dpo/train.jsonl --tokenizer tiny --show 1
	@echo
	@cd $(RUN)/training && find . -type f | sort
	@echo
	@echo "What next:"
	@echo "  . $(BIN)/activate                            # then, as often as you like:"
	@echo "  rollforge env list                             # the environments there are"
	@echo "  rollforge env new my_env.py                    # your own: a prompt, a verifier, a dozen lines"
	@echo "  rollforge collect my_env.py --model scripted:perfect --repeats 4"
	@echo "  rollforge advise $(RUN)   # which algorithm the data fits, and what to collect next"
	@echo "  rollforge collect arithmetic --model chat:MODEL --base-url http://localhost:8000/v1   # vLLM, Ollama, llama.cpp ..."

# make demo-train SEED=1: another draw of all of it.
demo-train: $(VENV)/train
	@echo "The small policy uses the wrong calculator tool in most steps. It learns from its own good rollouts, then in the environment itself."
	@echo
	$(BIN)/rollforge collect arithmetic $(ONE_STEP) --model tiny --set env.n=1200 --set env.seed=$(SEED) --seed $(SEED) \
		--repeats 2 --temperature 1 --out $(TRAIN)/collect
	@echo
	$(BIN)/rollforge curate $(TRAIN)/collect --dedup both --out $(TRAIN)/data
	@echo
	$(BIN)/rollforge train sft $(TRAIN)/data --env arithmetic $(ONE_STEP) --seed $(SEED) --eval-every 20 --out $(TRAIN)/sft
	@echo
	$(BIN)/rollforge train grpo --env arithmetic $(ONE_STEP) --model tiny:$(TRAIN)/sft/model --steps 60 --reuse 2 --seed $(SEED) \
		--eval-every 10 --out $(TRAIN)/grpo
	@echo
	$(BIN)/rollforge eval tiny tiny:$(TRAIN)/sft/model tiny:$(TRAIN)/grpo/model --env arithmetic $(ONE_STEP) --set env.split=test \
		--repeats 4 --temperature 1 --seed $(SEED) --out $(TRAIN)/eval
	@echo
	@echo "The curve: $(TRAIN)/grpo/curve.png   the report: $(TRAIN)/grpo/report.md"
	@echo "Use it:    $(BIN)/rollforge collect arithmetic --model tiny:$(TRAIN)/grpo/model --limit 20 --out $(TRAIN)/after"

test: $(VENV)/dev
	$(BIN)/pytest -n $(JOBS)

# Against torch, transformers and math-verify, which are large; `make test` skips these tests where they are not installed.
test-extras: $(VENV)/extras
	$(BIN)/pytest -n $(JOBS) -m extras

# Against the trainers that the exports are for, as far as they run without a GPU: TRL trains, verl and OpenRLHF load.
test-trainers: $(VENV)/trainers
	$(BIN)/pytest -n $(JOBS) -m trainers

check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest tests/test_layers.py

bench: $(VENV)/dev
	@for what in start cpu memory growth tail; do $(BIN)/python benchmarks/engine.py $$what --quick || exit 1; done

docs: $(VENV)/docs
	$(BIN)/zensical build --strict -f mkdocs.yml

clean:
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/core: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/core

$(VENV)/train: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet 'torch==2.13.0'
	$(BIN)/python -m pip install --quiet --editable '.[train]'
	@touch $@ $(VENV)/core

# The exact version of torch is a CPU build; any other would bring several GB of CUDA libraries along.
$(VENV)/extras: $(VENV)/dev
	$(BIN)/python -m pip install --quiet 'torch==2.13.0'
	$(BIN)/python -m pip install --quiet --editable '.[train,math,mcp,sql,reasoning-gym]'
	@touch $@

# Without their dependencies, which want CUDA; what their data set classes and reward managers import follows, in verl's
# own versions of transformers and tensordict.
$(VENV)/trainers: $(VENV)/extras
	$(BIN)/python -m pip install --quiet --editable '.[parquet]'
	$(BIN)/python -m pip install --quiet --no-deps verl openrlhf
	$(BIN)/python -m pip install --quiet accelerate cachetools codetiming dill fastapi httpx hydra-core jmespath jsonlines pandas pillow \
		pylatexenc ray torchdata uvicorn 'transformers>=5.5.3,<5.11' 'tensordict>=0.8,<=0.10.0,!=0.9.0'
	@touch $@

$(VENV)/docs: $(VENV)/dev
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@
