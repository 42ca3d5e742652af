# Everything runs in .venv. The device's needs and the developer's are two stamps, so `make demo` installs no torch.
PYTHON ?= python3
EDGE_DATA ?= ../shared/data
PIP = .venv/bin/pip install --quiet --disable-pip-version-check
export EDGE_DATA

.PHONY: help demo test lint format quantize default-model docs docs-serve bench soak wheel wheelhouse test-integration camera arm64 arm64-camera arm64-root clean

help:  ## this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

.venv/bin/pip:
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "make: $(PYTHON) cannot make a virtual environment; apt install python3-venv"; exit 1; }

.venv/device: pyproject.toml constraints.txt | .venv/bin/pip
	@echo "installing what a device and its endpoint need ..."
	$(PIP) -c constraints.txt -e '.[onnx,cloud,web]'
	@touch $@

.venv/dev: pyproject.toml constraints.txt | .venv/bin/pip
	@echo "installing everything for developers, torch among it: two to four minutes ..."
	$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@ .venv/device

demo: .venv/device  ## the whole path in under a minute: endpoint, loop, offload, annotated video
	.venv/bin/python docs/demo.py

test: .venv/dev  ## all tests that need no network and nothing from apt
	.venv/bin/python -m pytest -q -m "not slow and not integration and not camera and not arm64"

lint: .venv/dev  ## ruff, mypy, import contracts
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

format: .venv/dev  ## put the code in its one format
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

quantize: .venv/dev  ## EfficientNet-Lite0 to build/efficientnet-lite0.edge, every variant, measured and verified
	.venv/bin/edge-quantize efficientnet-lite0 --data $(EDGE_DATA)/imagenette --out build/efficientnet-lite0.edge
	.venv/bin/edge-eval --model build/efficientnet-lite0.edge --data $(EDGE_DATA)/imagenette --exact

default-model: .venv/dev  ## the bundle that the package carries (docs/decisions/0002-default-bundle.md)
	.venv/bin/edge-quantize efficientnet-lite0 --data $(EDGE_DATA)/imagenette --variants int8-x86,int8-tflite \
		--out edge/data/efficientnet-lite0.edge --report build/default-model.html
	.venv/bin/edge-eval --data $(EDGE_DATA)/imagenette --exact

docs: .venv/dev  ## the generated parts of docs/, and the site: build/site/index.html
	.venv/bin/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet --strict

docs-serve: .venv/dev  ## the site at http://127.0.0.1:8000, built again when a page changes
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs serve

bench: .venv/dev build/yolox-nano.edge  ## edge-run against hand-written loops, in pairs
	.venv/bin/python benchmarks/loop.py --detector build/yolox-nano.edge

build/yolox-nano.edge: | .venv/dev
	.venv/bin/edge-quantize $(EDGE_DATA)/models/yolox_nano_416.onnx --head yolox --labels coco --data $(EDGE_DATA)/coco128 \
		--out $@ --budget-minutes 8

soak: .venv/dev  ## half an hour of cameras that keep failing: nothing may grow
	.venv/bin/python benchmarks/soak.py

wheel: .venv/dev  ## dist/: source archive and wheel, the default bundle in it
	.venv/bin/python -m build --quiet  # the wheel from the source archive, so that nothing stale in build/ gets in

wheelhouse: wheel  ## build/wheelhouse-BOARD/: what BOARD=raspberry-pi-4 installs from without a network (docs/install.md)
	@.venv/bin/python -m devices.wheelhouse "$(BOARD)" --extras "$(EXTRAS)" --system "$(SYSTEM)" --constraints constraints.txt \
		--python-version "$(if $(filter command,$(origin PYTHON_VERSION)),$(PYTHON_VERSION))" --wheel "$$(ls -t dist/edge_run-*.whl | head -1)"

test-integration: .venv/dev  ## the wheel in fresh environments, the real quantization, RTSP, a short soak; the package index, apt
	tests/integration/apt.sh
	.venv/bin/python -m pytest -q -m "integration or slow"

camera: .venv/dev  ## edge-run --camera 0 on a real V4L2 device in a virtual machine; root, apt, 4 minutes
	tests/camera/vm.sh .venv/bin/python -m pytest -q -m camera tests/camera

arm64: .venv/dev  ## the wheel on emulated ARM boards against x86; root, apt, 10 minutes
	.venv/bin/python -m pytest -q -m arm64 tests/arm64

arm64-camera: .venv/dev  ## edge-run --camera 0 on an emulated ARM board with a webcam; root, apt, 2 minutes
	.venv/bin/python -m pytest -q -m arm64_camera tests/arm64

arm64-root: .venv/dev  ## what edge-quantize counts ARM instructions in; root, apt, 40 seconds
	PYTHON=.venv/bin/python quantize/arm64_root.sh

clean:  ## all that was made here
	rm -rf .venv build dist out *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
