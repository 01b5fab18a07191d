# On a fresh machine with python3 (3.11 or newer) and make: `make demo` runs the main job, `make test` checks everything.
# Both install the built wheel, not the source tree: the root folders export/, quantize/, bench/ and targets/ exist under
# their published names only there.

PYTHON ?= python3
VENV   ?= .venv
CASES  ?=
CASE   ?=

BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --constraint constraints.txt
WHEEL   := $(VENV)/dist/edge_latup-*.whl
ROOMS   := edge_latup export quantize bench targets
# Folders too, so that a removed file is noticed.
SOURCES := $(shell find $(ROOMS) -not -name '__pycache__' -not -name '*.pyc' -not -name '.*' 2>/dev/null)

.NOTPARALLEL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help install demo sweep networks networks-control networks-cases networks-train networks-monai networks-nnunet bench-onnxruntime turns bench-case test lint types rooms slow pages commands browser clean predict-check fuzz-bundle aarch64-root aarch64-wheels aarch64-clean test-aarch64 sshd shellcheck tensorrt-bindings

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables: PYTHON=$(PYTHON) (3.11 or newer)  VENV=$(VENV)  CASES=folder of labelled cases, for demo"
	@echo "           CASE=one case's folder, for bench-case"

install: $(VENV)/.installed  ## Make the virtual environment and install edge-latup with the engineer's packages

demo: $(VENV)/.installed  ## Run the main job: export, compress, benchmark, report (CASES=folder: on your own cases)
	$(BIN)/edge-latup demo $(if $(CASES),--cases "$(CASES)")

sweep: $(VENV)/.installed  ## Audit, gate, surgery, sweep over instruction sets, verdict (CASES=folder: on your own cases)
	$(BIN)/edge-latup demo --full $(if $(CASES),--cases "$(CASES)")

# Timing only, at 64^3: the demo network in ONNX Runtime, and its dynamic INT8, which is there to be seen losing.
BENCH_ORT := edge-latup-demo/onnxruntime-64
bench-onnxruntime: $(VENV)/.installed  ## Time ONNX Runtime's INT8 forms against FP32 at 64x64x64
	$(BIN)/edge-latup phantom --cases 2 --seed 11 --out edge-latup-demo/phantoms-64
	$(BIN)/edge-latup export edge_latup/demo --size 64 --out $(BENCH_ORT)/fp32 --overwrite
	$(BIN)/edge-latup quantize $(BENCH_ORT)/fp32 --method dynamic-range --out $(BENCH_ORT)/dynamic-range --overwrite
	$(BIN)/edge-latup quantize $(BENCH_ORT)/fp32 --method dynamic-int8 --runtime onnxruntime --out $(BENCH_ORT)/dynamic-int8 --overwrite
	$(BIN)/edge-latup quantize $(BENCH_ORT)/fp32 --method int8 --runtime onnxruntime --calibration edge-latup-demo/phantoms-64 --out $(BENCH_ORT)/int8 --overwrite
	rm -rf $(BENCH_ORT)/records
	$(BIN)/edge-latup bench $(BENCH_ORT)/fp32@onnxruntime $(BENCH_ORT)/dynamic-range@onnxruntime $(BENCH_ORT)/dynamic-int8 $(BENCH_ORT)/int8 --out $(BENCH_ORT)/records

# On a shared host rows that are timed one after the other meet different machines; those of one round meet the same.
ROUNDS ?= 12
turns: $(VENV)/.installed  ## Time the artifacts of the newest demo run in turns: speed-ups on a host whose own speed changes (ROUNDS=12)
	set -e; run=$$(ls -d edge-latup-demo/*Z/artifacts/pytorch 2>/dev/null | tail -n 1); run=$${run%/pytorch}; \
	test -n "$$run" || { echo "error: there is no demo run" >&2; echo "hint: make demo" >&2; exit 2; }; \
	$(BIN)/edge-latup bench $$(for name in pytorch fp32 bf16 int8 int8-bf16; do test ! -d $$run/$$name || echo $$run/$$name; done) \
	  --turns $(ROUNDS) --out "edge-latup-demo/turns-$$(date -u +%Y%m%dT%H%M%SZ)"

# With the artifacts of the newest demo run, which are made where there are none. MONAI's rows take minutes each.
bench-case: $(VENV)/.compare $(VENV)/.installed  ## Compare one case, files to label map, with MONAI (CASE=folder)
	@test -n "$(CASE)" || { echo "error: no case is named" >&2; echo "hint: make bench-case CASE=case-folder" >&2; exit 2; }
	$(BIN)/edge-latup bench-case "$(CASE)" --out "edge-latup-demo/case-$$(date -u +%Y%m%dT%H%M%SZ)"

# All of it takes hours. What is there is kept, so it can be stopped and begun again. FOREIGN: further folders that `edge-latup import` takes.
# REAL: a folder of labelled real cases to train on too; then the figures are no longer those of docs/networks.md.
NETWORKS := edge-latup-demo/networks
FLAT     := res-unet-gate res-unet-se res-unet-cbam
DEEP     := attention-resnet-unet attention-resnet-unet-flops-matched
MONAI    := $(NETWORKS)/monai/brats_bundle
NNUNET   := $(NETWORKS)/nnunet
FOREIGN  ?=
REAL     ?=
networks: networks-train networks-monai networks-nnunet  ## Train the published networks briefly, bench each on held-out phantoms; rewrites the table of docs/networks.md
	set -e; benched() { test -f $(NETWORKS)/runs/$$1/network.json || { rm -rf $(NETWORKS)/runs/$$1; $(BIN)/edge-latup bench-network $$2 \
	--calibration $(NETWORKS)/calibration$$3 --cases $(NETWORKS)/held-out$$3 --out $(NETWORKS)/runs/$$1 --runs 20 --seconds 5 $$4; }; }; \
	benched latup-net edge_latup/demo -full; \
	for name in $(DEEP); do benched $$name $(NETWORKS)/checkpoints/$$name; done; \
	benched res-unet $(NETWORKS)/checkpoints/res-unet "" "--size=160x160x16 --onnxruntime"; \
	for name in $(FLAT); do benched $$name $(NETWORKS)/checkpoints/$$name "" --size=160x160x16; done; \
	for model in $(NNUNET)/nnunet_results/*/nnUNetTrainer__* $(MONAI) $(FOREIGN); do benched $$(basename $$model) $$model; done
	cd $(NETWORKS)/runs && $(abspath $(BIN))/edge-latup bench-network --table latup-net $(DEEP) res-unet $(FLAT) nnUNetTrainer__* $(notdir $(MONAI) $(FOREIGN)) --docs $(CURDIR)/docs/networks.md

# After `make networks`. Six further phantoms choose, those of its table judge. The margin is of Dice; the IoU drop stands in the result.
networks-control: $(VENV)/.installed  ## Find what INT8 of the base Res-UNet must leave in BF16 to keep to the published IoU drop
	$(BIN)/edge-latup phantom --out $(NETWORKS)/development --seed 34 --cases 6 --shape 160x160x128
	$(BIN)/edge-latup control $(NETWORKS)/runs/res-unet/artifacts/fp32 --calibration $(NETWORKS)/calibration --cases $(NETWORKS)/development \
	--confirm $(NETWORKS)/held-out --margin 0.0004 --float-precision bf16 --runs 10 --out $(NETWORKS)/control

networks-cases: $(VENV)/.networks $(VENV)/.installed
	set -e; phantoms() { $(BIN)/edge-latup phantom --out $(NETWORKS)/$$1 --seed $$2 --cases $$3 --shape $$4; }; \
	phantoms training 31 16 160x160x128; phantoms calibration 32 4 160x160x128; phantoms held-out 33 4 160x160x128; \
	phantoms calibration-full 11 4 240x240x155; phantoms held-out-full 12 3 240x240x155

networks-train: networks-cases
	set -e; trained() { test -f $(NETWORKS)/checkpoints/$$1/model.safetensors || \
	$(BIN)/edge-latup train --network $$1 --cases $(NETWORKS)/training $(if $(REAL),--cases "$(REAL)") $$2 --out $(NETWORKS)/checkpoints/$$1; }; \
	trained res-unet "--phase=64:300 --phase=160:120"; for name in $(FLAT); do trained $$name "--phase=64:200 --phase=160:60"; done; \
	trained attention-resnet-unet --phase=48:1500; trained attention-resnet-unet-flops-matched --phase=48:1000

networks-monai: networks-cases
	test -f $(MONAI)/models/model.pt || $(BIN)/python tests/integration/monai_twin.py $(NETWORKS)/training $(dir $(MONAI)) 800

networks-nnunet: networks-cases $(VENV)/nnunet/.made
	mkdir -p $(NNUNET) && ln -sfn $(abspath $(NETWORKS))/training $(NNUNET)/cases
	test -f $(NNUNET)/predicted.nii.gz || $(VENV)/nnunet/bin/python tests/integration/nnunet_twin.py $(NNUNET) labels modest

# nnU-Net's own trainer, in an environment of its own.
$(VENV)/nnunet/.made:
	$(PYTHON) -m venv $(VENV)/nnunet
	$(VENV)/nnunet/bin/pip install nnunetv2==2.8.1 torch==2.13.0
	touch $@

# Its class rates become those that come with edge-latup once copied to targets/class_rates/.
predict-check: $(VENV)/.installed  ## Hold predictions against measurements of this machine; rewrites the table of docs/prediction.md
	$(BIN)/edge-latup predict --check edge-latup-demo/prediction --docs docs/prediction.md

# Two test files at a time: much of what a test does is to start a command, which keeps one core busy. WORKERS=0 runs them one by one.
WORKERS ?= 2
test: lint types rooms  ## Lint, check types and imports, run the tests
	$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile

lint: $(VENV)/.dev  ## Lint, and check the formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# From another folder, so that the installed package is seen and not ./edge_latup.
types: $(VENV)/.dev $(VENV)/.installed  ## Check the types of the installed package
	cd $(VENV) && bin/mypy --config-file "$(CURDIR)/pyproject.toml" --cache-dir "$(CURDIR)/.mypy_cache" -p edge_latup

rooms: $(VENV)/.dev $(VENV)/.installed  ## Check that imports between rooms go one way
	cd $(VENV) && bin/lint-imports --config "$(CURDIR)/pyproject.toml" --no-cache --no-logo

slow: $(VENV)/.dev $(VENV)/.installed  ## Run the tests that take minutes
	$(BIN)/pytest -m slow

commands: $(VENV)/.installed  ## Bring docs/commands.md up to date with the command line
	cd $(VENV) && bin/python -P -m typer edge_latup.cli utils docs --name edge-latup | sed "s/&#x27;/'/g" >commands.md
	mv $(VENV)/commands.md docs/commands.md

pages: $(VENV)/.installed  ## Bring the facts in docs/targets up to date with targets/profiles
	$(BIN)/python -P -m edge_latup.targets.pages docs/targets

FUZZ_CASES ?= 10000
FUZZ_SEED  ?= 1
fuzz-bundle: $(VENV)/.dev $(VENV)/.installed  ## Mutate signed bundles and archives FUZZ_CASES times; none may be accepted, crash or hang
	$(BIN)/python tests/bundle_fuzz.py --cases $(FUZZ_CASES) --seed $(FUZZ_SEED)

browser:  ## Install Chromium, with which the tests look at the report (Debian and Ubuntu, as root)
	@if command -v chromium || command -v chromium-browser || command -v google-chrome; then \
		echo "a browser is here: nothing to install"; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium fonts-dejavu-core; \
	else \
		echo "no chromium on PATH, and it can be installed only by root on Debian or Ubuntu: sudo apt-get install chromium" >&2; exit 1; \
	fi

# The arm64 Debian: not below build/, which every new wheel empties. MIRROR=http://... where apt's own is not to be used.
AARCH64      ?= $(VENV)/aarch64
AARCH64_ROOT := AARCH64="$(AARCH64)" tests/aarch64/root.sh
AARCH64_WHEELS := $(BIN)/python tests/aarch64/wheels.py

aarch64-root: $(VENV)/.dev $(VENV)/.installed  ## Make an arm64 Debian with the clinic's wheels, run by qemu (Debian and Ubuntu, as root)
	$(AARCH64_ROOT) tools
	$(AARCH64_WHEELS) --out "$(AARCH64)/wheels" --python 3.11 $(WHEEL)
	$(AARCH64_ROOT) make $(WHEEL)

aarch64-wheels: $(VENV)/.dev $(VENV)/.installed  ## Fetch the clinic's wheels for JetPack 6 (aarch64, Python 3.10)
	$(AARCH64_WHEELS) --out "$(AARCH64)/wheels-3.10" --python 3.10 $(WHEEL)

test-aarch64: aarch64-root  ## Run the network on emulated aarch64 and compare with this machine
	EDGE_LATUP_AARCH64="$(AARCH64)" $(BIN)/pytest -m slow -k aarch64 tests/integration tests/packaging/test_wheelhouses.py

aarch64-clean:  ## Remove the arm64 Debian and what was fetched for it
	$(AARCH64_ROOT) remove

sshd:  ## Install OpenSSH's server, which the tests of bench --host start on loopback (Debian and Ubuntu, as root)
	@if [ -x /usr/sbin/sshd ] && command -v ssh-keygen >/dev/null; then \
		echo "sshd is here: nothing to install"; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends openssh-server openssh-client; \
	else \
		echo "no sshd, and it can be installed only by root on Debian or Ubuntu: sudo apt-get install openssh-server" >&2; exit 1; \
	fi

shellcheck:  ## Install ShellCheck, with which the tests lint the scripts of bundles (Debian and Ubuntu, as root)
	@if command -v shellcheck; then \
		echo "shellcheck is here: nothing to install"; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends shellcheck; \
	else \
		echo "no shellcheck, and it can be installed only by root on Debian or Ubuntu: sudo apt-get install shellcheck" >&2; exit 1; \
	fi

tensorrt-bindings: $(VENV)/.dev $(VENV)/.installed  ## Fetch NVIDIA's Python bindings (30 MB), which the TensorRT contract test imports
	$(BIN)/python -P tests/nvidia_bindings.py

clean:  ## Remove the virtual environment and all that the tools made
	@if [ -e $(VENV)/.made ]; then rm -rf $(VENV); fi
	rm -rf build dist edge_latup.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find $(ROOMS) tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: '$(PYTHON)' is not Python 3.11 or newer ($$($(PYTHON) --version 2>&1))" >&2; \
		echo "hint: make ... PYTHON=python3.11; the engineer's side is pinned and tested on 3.11." >&2; \
		echo "      Python 3.10 runs the clinic core only: pip install -c constraints.txt '.[core]'" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV) || { \
		echo "hint: on Debian and Ubuntu the venv module is a package of its own: apt-get install python3-venv" >&2; exit 2; }
	$(INSTALL) setuptools
	touch $@

# A left-over build/ would put removed files into the wheel.
$(VENV)/.wheel: $(VENV)/.made pyproject.toml README.md LICENSE NOTICE $(SOURCES)
	rm -rf build $(VENV)/dist
	$(PIP) wheel --quiet --no-deps --no-index --no-build-isolation --wheel-dir $(VENV)/dist .
	rm -rf build edge_latup.egg-info
	touch $@

# Dependencies move only with these two files; a change in the sources re-installs the wheel alone.
$(VENV)/.engineer: pyproject.toml constraints.txt | $(VENV)/.wheel
	$(INSTALL) "$$(echo $(WHEEL))[engineer]"
	touch $@

$(VENV)/.compare: $(VENV)/.engineer | $(VENV)/.wheel
	$(INSTALL) "$$(echo $(WHEEL))[engineer,compare]"
	touch $@

$(VENV)/.networks: $(VENV)/.engineer | $(VENV)/.wheel
	$(INSTALL) "$$(echo $(WHEEL))[engineer,monai,nnunet]"
	touch $@

$(VENV)/.dev: $(VENV)/.engineer | $(VENV)/.wheel
	$(INSTALL) "$$(echo $(WHEEL))[engineer,test,dev]"
	touch $@

$(VENV)/.installed: $(VENV)/.wheel $(VENV)/.engineer
	$(PIP) install --quiet --no-deps --no-index --force-reinstall $(WHEEL)
	touch $@
