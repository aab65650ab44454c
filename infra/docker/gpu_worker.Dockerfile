# A replica; and, with the scheduler's tasks inside, the worker of downloads and fine-tuning.
# CUDA: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130
FROM python:3.11-slim-bookworm AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
# A compiler for the CPU kernels: the final image has none.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
COPY infra/docker/gpu_worker.lock infra/docker/
RUN python -m venv /opt/loraplex \
    && /opt/loraplex/bin/pip install --no-cache-dir --no-deps --require-hashes -r infra/docker/gpu_worker.lock \
    && /opt/loraplex/bin/pip install --no-cache-dir --index-url "$TORCH_INDEX" torch==2.13.0
COPY infra/docker/sbom.sh infra/docker/
RUN infra/docker/sbom.sh
COPY pyproject.toml README.md LICENSE ./
COPY loraplex loraplex
COPY scheduler scheduler
COPY gpu_worker gpu_worker
COPY kernels kernels
RUN /opt/loraplex/bin/pip install --no-cache-dir --no-deps . \
    && cd / && /opt/loraplex/bin/python -m kernels.cpu.build

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --create-home loraplex && install -d -o loraplex /var/lib/loraplex /models
COPY --from=build /opt/loraplex /opt/loraplex
ENV PATH=/opt/loraplex/bin:$PATH PYTHONUNBUFFERED=1 LORAPLEX_HOME=/var/lib/loraplex LORAPLEX_ALIVE_FILE=/tmp/alive
USER loraplex
# Writable where the root file system is not (Fargate makes it of this).
VOLUME /tmp
# Of the task worker; a replica's health is its lease.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD [ -n "$(find "$LORAPLEX_ALIVE_FILE" -newermt -30sec)" ]
CMD ["python", "-m", "celery", "-A", "scheduler.tasks.app", "worker", "-Q", "imports,training", "--pool=threads", "--concurrency=4", "--loglevel=INFO", "--without-gossip", "--without-mingle"]
