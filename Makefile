# `make help` lists what there is.
.DEFAULT_GOAL := help
.PHONY: help setup demo test check format protos lock clean up down secrets image grpc-clients grpc-images test-grpc

PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
VENV := .venv/bin
GENERATED ?= grpc_gateway/generated
# As Compose reads it: the environment, then .env.
IMAGE = $(or $(INFERENCE_SERVER_IMAGE),$(shell sed -n 's/^INFERENCE_SERVER_IMAGE=//p' .env 2>/dev/null),inference-server:0.1.0)

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/ready ## Make .venv with everything locked in requirements/dev.txt

.venv/ready: requirements/dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; none was found" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(VENV)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(VENV)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch .venv/ready

demo: setup ## Start a server, register a model, submit a real input, show what came out
	$(VENV)/python examples/demo.py

# In CI nothing may be skipped for want of what can be made.
test: setup ## Run every test this machine can run; what was skipped is listed with its reason
	$(if $(filter true,$(CI)),$(MAKE) -j2 grpc-clients grpc-images)
	$(VENV)/python -m tests.run

grpc-clients: .venv-grpc/ready ## Make .venv-grpc with the public gRPC clients: Triton's, TensorFlow Serving's, Ray's

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

grpc-images: ## Build the images of the examples that are called live
	tests/grpc/build_images

test-grpc: setup grpc-clients grpc-images ## Public gRPC clients against the examples' containers, and on a whole stack
	$(VENV)/python -m tests.run tests/grpc

check: setup ## Format, lint, types, architecture, generated code fresh
	$(VENV)/ruff format --check .
	$(VENV)/ruff check .
	$(VENV)/mypy
	$(VENV)/pytest -q tests/unit/test_architecture.py tests/unit/test_kubernetes.py tests/unit/test_env_example.py \
		tests/unit/test_stack_file.py tests/unit/test_generated_code.py

format: setup ## Format the code
	$(VENV)/ruff format .
	$(VENV)/ruff check --fix .

protos: setup ## Generate the code of the wire contracts from grpc_gateway/protos
	$(VENV)/python -m grpc_tools.protoc -I grpc_gateway/protos --python_out=$(GENERATED) --pyi_out=$(GENERATED) \
		grpc_gateway/protos/*.proto

lock: setup ## Write requirements/*.txt anew from pyproject.toml
	for extra in dev server; do \
		$(VENV)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
			--no-header --extra $$extra pyproject.toml -o requirements/$$extra.txt || exit 1; \
	done
	$(VENV)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		requirements/grpc-clients.in -o requirements/grpc-clients.txt
	$(VENV)/uv pip compile --quiet --no-deps --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header requirements/grpc-stubs.in -o requirements/grpc-stubs.txt

image: ## Build the image of all services
	DOCKER_BUILDKIT=0 docker build --quiet --tag $(IMAGE) . >/dev/null

secrets: ## Make the passwords the services know each other by, once
	@python3 -m operations.secrets

.env:
	cp .env.example .env

up: .env secrets ## Build what is missing, make secrets and a certificate once, and start the whole server
	@test -f traefik/certs/server.crt || traefik/certs/generate_self_signed_certs "$$(sed -n 's/^PROXY_DOMAIN=//p' .env)"
	@docker image inspect $(IMAGE) >/dev/null 2>&1 || $(MAKE) image
	docker compose up --detach --wait
	@docker compose ps --format 'table {{.Service}}\t{{.Status}}'
	@echo "ready: https://$$(sed -n 's/^PROXY_DOMAIN=//p' .env)/docs"

down: ## Stop the whole server; everything is kept
	docker compose down

clean: ## Remove what the targets made
	rm -rf .venv .venv-grpc demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
