# The server and the model server in one image, from the lock file. Build: docker build -t easyml .
# A registry of your own: --build-arg PYTHON_IMAGE=registry.example/python@sha256:…
# It serves; --entrypoint easyml-model-server (in a pod: command) serves models instead. Only /data and /tmp are written to.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
RUN pip install --no-cache-dir "uv~=0.13.0"
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PROJECT_ENVIRONMENT=/opt/easyml UV_PYTHON_DOWNLOADS=never
WORKDIR /src
# The libraries alone first: they change less often than the code.
COPY pyproject.toml uv.lock README.md LICENSE ./
COPY clients/python/pyproject.toml clients/python/README.md clients/python/
COPY generated/python/pyproject.toml generated/python/
RUN uv sync --frozen --no-dev --extra dask --extra s3 --no-install-workspace
COPY easyml_server easyml_server
COPY generated/python generated/python
COPY clients/python clients/python
RUN uv sync --frozen --no-dev --extra dask --extra s3 --no-editable --all-packages

FROM ${PYTHON_IMAGE}
# libgomp is what LightGBM and scikit-learn run their threads with.
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /data --create-home easyml
COPY --from=build /opt/easyml /opt/easyml
ENV PATH=/opt/easyml/bin:$PATH EASYML_HOST=0.0.0.0 EASYML_DATA_DIR=/data EASYML_LOG_FORMAT=json
USER 10001:10001
VOLUME /data
EXPOSE 50051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["easyml-server", "probe"]
ENTRYPOINT ["easyml-server"]
CMD ["serve"]
