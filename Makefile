# `make help` lists the targets.
.DEFAULT_GOAL := help
.PHONY: help setup demo docs pictures prepare test test-long check format protos lock clean up down secrets image grpc-clients grpc-images test-grpc test-engine openapi-clients supply sbom engine-matrix failpoints mutants chaos soak bench

PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
VENV := .venv/bin
GENERATED ?= grpc_gateway/generated
SITE ?= public_api/help_files
SBOM ?= sbom/inference-server.cdx.json
# As Compose reads it: the environment, then .env.
setting = $(or $($(1)),$(shell sed -n 's/^$(1)=//p' .env 2>/dev/null),$(2))
IMAGE = $(call setting,INFERENCE_SERVER_IMAGE,inference-server:0.1.0)
PYTHON_BASE = $(call setting,PYTHON_IMAGE,python:3.13-slim)

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/ready ## Create .venv with everything locked in requirements/dev.txt

# The client comes last: an older install of the server owns the command infer, and takes it along.
.venv/ready: requirements/dev.txt pyproject.toml inference_client/pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; none was found" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(VENV)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(VENV)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(VENV)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e inference_client
	@touch .venv/ready

demo: setup ## Start a server, register a model, submit a real input, show the output
	$(VENV)/python examples/demo.py

docs: .venv-docs/ready ## Build the site of the documentation, which a server then serves at /help
	rm -rf $(SITE)
	.venv-docs/bin/python -m sphinx --builder html --fail-on-warning --keep-going --quiet --fresh-env \
		--conf-dir docs --doctree-dir .venv-docs/doctrees . $(SITE)

pictures: setup ## Take the documentation's pictures again; needs Chromium and Graphviz
	$(VENV)/python -m tests.pictures

.venv-docs/ready: requirements/docs.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; none was found" >&2; exit 1; }
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/docs.txt
	@touch .venv-docs/ready

# Not by tests.prepare: `check`, which may run beside it, needs the same.
prepare: setup supply ## Make what the tests need: clients, images, the site, a browser
	$(VENV)/python -m tests.prepare

test: prepare ## Make what the tests need and run them; skip only what this machine cannot have
	$(VENV)/python -m tests.run

test-long: prepare ## Run what takes longest: swarm, resets, kills in turn, a week as the admin, all orders of events
	tests/grpc/build_images long
	$(VENV)/python -m tests.run -m long --numprocesses 2 --no-loadscope-reorder

engine-matrix: setup ## Restart, kill and cut the power of Docker Engines under tasks, in every combination
	TEST_ENGINE_MATRIX=1 $(VENV)/python -m pytest -v tests/e2e/test_engine_deaths.py

grpc-clients: .venv-grpc/ready ## Create .venv-grpc with the public gRPC clients: Triton's, TensorFlow Serving's, Ray's

.venv-grpc/ready: requirements/grpc-clients.txt requirements/grpc-stubs.txt tests/grpc/take_stubs.py
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; none was found" >&2; exit 1; }
	$(PYTHON) -m venv .venv-grpc
	.venv-grpc/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/grpc-clients.txt
	.venv-grpc/bin/pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
		--dest .venv-grpc/wheels -r requirements/grpc-stubs.txt
	.venv-grpc/bin/python tests/grpc/take_stubs.py .venv-grpc/wheels \
		"$$(.venv-grpc/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	@rm -r .venv-grpc/wheels
	@touch .venv-grpc/ready

openapi-clients: .venv-openapi/ready ## Create .venv-openapi with generators of clients for the HTTP API

.venv-openapi/ready: requirements/openapi-clients.txt tests/typescript/package-lock.json
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; none was found" >&2; exit 1; }
	$(PYTHON) -m venv .venv-openapi
	.venv-openapi/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/openapi-clients.txt
	@mkdir -p .venv-openapi/typescript
	cp tests/typescript/package.json tests/typescript/package-lock.json .venv-openapi/typescript/
	@command -v npm >/dev/null || echo "no npm: the generated TypeScript client is not tested" >&2
	! command -v npm >/dev/null || npm ci --loglevel error --no-audit --no-fund --prefix .venv-openapi/typescript
	@touch .venv-openapi/ready

supply: .venv-supply/ready ## Create .venv-supply with what names the parts of a release, and what is known against them

.venv-supply/ready: requirements/supply.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; none was found" >&2; exit 1; }
	$(PYTHON) -m venv .venv-supply
	.venv-supply/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/supply.txt
	@touch .venv-supply/ready

sbom: supply ## Write what a release is made of into SBOM=sbom/inference-server.cdx.json, as CycloneDX
	.venv-supply/bin/python -m tests.sbom $(SBOM)

grpc-images: ## Build the images of the examples that are called live
	tests/grpc/build_images

test-grpc: setup grpc-clients grpc-images ## Run public gRPC clients against the examples' containers, and on a whole stack
	$(VENV)/python -m tests.run tests/grpc

test-engine: setup ## Run what talks to a Docker Engine, and standalone, on the Engine that DOCKER_HOST names
	$(VENV)/python -m pytest --numprocesses 2 tests/integration/test_docker_engine.py tests/integration/test_docker_images.py \
		tests/integration/test_engines.py tests/integration/test_engine_away.py tests/integration/test_model_cache.py \
		tests/integration/test_image_cache.py tests/integration/test_check.py tests/e2e/test_compatibility.py

check: setup supply ## Check format, lint, types, architecture, generated code, and locked packages for known holes
	$(VENV)/ruff format --check .
	$(VENV)/ruff check .
	$(VENV)/mypy
	$(VENV)/pytest -q tests/unit/test_architecture.py tests/unit/test_kubernetes.py tests/unit/test_env_example.py \
		tests/unit/test_stack_file.py tests/unit/test_generated_code.py
	$(VENV)/python -m tests.advisories $(AUDIT_OPTIONS)

format: setup ## Format the code
	$(VENV)/ruff format .
	$(VENV)/ruff check --fix .

protos: setup ## Generate the wire contracts' code from grpc_gateway/protos
	$(VENV)/python -m grpc_tools.protoc -I grpc_gateway/protos --python_out=$(GENERATED) --pyi_out=$(GENERATED) \
		grpc_gateway/protos/*.proto

lock: setup ## Regenerate requirements/*.txt from both pyproject.toml
	$(VENV)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		pyproject.toml inference_client/pyproject.toml -o requirements/server.txt
	$(VENV)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--extra dev pyproject.toml inference_client/pyproject.toml -o requirements/dev.txt
	$(VENV)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--extra docs --constraint requirements/server.txt pyproject.toml inference_client/pyproject.toml \
		-o requirements/docs.txt
	$(VENV)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		requirements/grpc-clients.in -o requirements/grpc-clients.txt
	$(VENV)/uv pip compile --quiet --no-deps --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header requirements/grpc-stubs.in -o requirements/grpc-stubs.txt
	$(VENV)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		requirements/openapi-clients.in -o requirements/openapi-clients.txt
	$(VENV)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		requirements/supply.in -o requirements/supply.txt

bench: setup ## Run the benchmarks, ONLY="starts janitor" of them, SIZE=small or full; results go to OUT=benchmarks-out
	$(VENV)/python -m benchmarks.run --size $(or $(SIZE),small) --out $(or $(OUT),benchmarks-out) --only "$(ONLY)"

failpoints: setup ## Fail every service at every step of a task's life, and show that the task ends once
	FAILPOINTS=all $(VENV)/python -m tests.run tests/e2e/test_failpoints.py

chaos: setup ## Kill and freeze parts of a server at random; TASKS=300, SEED= to repeat
	$(VENV)/python -m tests.chaos --tasks $(or $(TASKS),300) $(if $(SEED),--seed $(SEED))

soak: setup ## Run tasks for MINUTES=20, and measure whether the memory of a service grows
	$(VENV)/python -m tests.chaos.soak --minutes $(or $(MINUTES),20)

mutants: setup ## Remove one guard of the server at a time, and show that a test notices
	$(VENV)/python -m tests.mutants

image: ## Build the image of all services
	DOCKER_BUILDKIT=0 docker build --quiet --build-arg PYTHON_IMAGE=$(PYTHON_BASE) --tag $(IMAGE) . >/dev/null

secrets: ## Create the passwords that the services share, once, for Swarm and Kubernetes; Compose makes its own
	@python3 -m operations.secrets

up: ## Start the whole server and say where it is; builds its image and makes secrets and a certificate once
	docker compose up --detach --wait
	@docker compose ps --format 'table {{.Service}}\t{{.Status}}'
	@docker compose exec -T private-api inference-server welcome
	@test -e traefik/certs/server.crt || echo "Its certificate, for clients to trust:" \
		"docker compose exec -T traefik cat /run/certificate/server.crt > server.crt"

down: ## Stop the whole server and keep all data
	docker compose down

clean: ## Remove what the targets created
	rm -rf .venv .venv-grpc .venv-openapi .venv-docs .venv-supply sbom $(SITE) demo benchmarks-out .mypy_cache .ruff_cache .pytest_cache .hypothesis
