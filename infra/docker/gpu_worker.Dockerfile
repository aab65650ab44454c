# The task worker with all that a replica needs: it starts replicas as processes beside itself.
# CUDA: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130
FROM python:3.11-slim-bookworm AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
RUN python -m venv /opt/loraplex && /opt/loraplex/bin/pip install --no-cache-dir --index-url "$TORCH_INDEX" torch==2.13.0
COPY . .
RUN /opt/loraplex/bin/pip install --no-cache-dir '.[worker,scheduler,postgres]'
# The CPU kernels, for the machine that has no compiler.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev \
    && cd / && /opt/loraplex/bin/python -m kernels.cpu.build

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --create-home loraplex && install -d -o loraplex /var/lib/loraplex
COPY --from=build /opt/loraplex /opt/loraplex
ENV PATH=/opt/loraplex/bin:$PATH PYTHONUNBUFFERED=1 LORAPLEX_HOME=/var/lib/loraplex
USER loraplex
HEALTHCHECK --interval=30s --timeout=20s --start-period=30s CMD ["python", "-m", "celery", "-A", "scheduler.tasks.app", "inspect", "ping", "--timeout", "10"]
CMD ["python", "-m", "celery", "-A", "scheduler.tasks.app", "worker", "-Q", "tasks", "--pool=threads", "--concurrency=4", "--loglevel=INFO", "--without-gossip", "--without-mingle"]
