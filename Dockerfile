# One image for every service; Compose, Swarm and Kubernetes pick the command.

# With a digest, as in python:3.13-slim@sha256:..., the same base each time (docs/operations/upgrade.md). It must be a 3.13.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS dependencies
WORKDIR /src
COPY requirements/server.txt requirements/
RUN python3 -m venv /opt/inference-server \
 && /opt/inference-server/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/server.txt

# The site that the public API serves at /help, written from the pages and from the programs.
FROM dependencies AS site
COPY requirements/docs.txt requirements/
RUN /opt/inference-server/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/docs.txt
COPY . .
RUN /opt/inference-server/bin/python -m sphinx --builder html --quiet --conf-dir docs --doctree-dir /tmp/doctrees . /site

FROM dependencies AS build
COPY pyproject.toml README.md LICENSE ./
COPY kit kit
COPY contract contract
COPY private_api private_api
COPY public_api public_api
COPY grpc_gateway grpc_gateway
COPY job_consumer job_consumer
COPY inference_client inference_client
COPY standalone standalone
COPY operations operations
COPY traefik/certs/generate_self_signed_certs /opt/inference-server/bin/
RUN /opt/inference-server/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps . ./inference_client \
 && /opt/inference-server/bin/python -m compileall -q /opt/inference-server/lib \
 && /opt/inference-server/bin/pip uninstall --quiet --yes pip

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="InferenceServer" \
      org.opencontainers.image.description="Run containerised computations on GPU hosts behind an HTTPS API" \
      org.opencontainers.image.licenses="Apache-2.0"
# The guards of replicas are containers of this image.
RUN apt-get update && apt-get install --yes --no-install-recommends nftables && rm -rf /var/lib/apt/lists/* /var/cache/apt
# /data, /login and /work exist here, so that a new named volume gets their owner.
RUN groupadd --gid 10001 inference && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin inference \
 && install -d -o 10001 -g 10001 -m 0700 /data /login && install -d -m 0700 /work
COPY --from=build /opt/inference-server /opt/inference-server
COPY --from=site /site /opt/inference-server/lib/python3.13/site-packages/public_api/help_files
ENV PATH=/opt/inference-server/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-m", "kit.healthcheck", "http://127.0.0.1:8000/healthz"]
CMD ["python", "-m", "public_api"]
