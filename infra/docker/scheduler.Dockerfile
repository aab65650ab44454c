# The scaler, and the task worker that starts replicas by a driver. No torch inside.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY infra/docker/scheduler.lock infra/docker/
RUN python -m venv --without-pip /opt/loraplex \
    && python -m pip --python /opt/loraplex install --no-cache-dir --no-deps --require-hashes -r infra/docker/scheduler.lock
COPY infra/docker/sbom.sh infra/docker/
RUN infra/docker/sbom.sh
COPY pyproject.toml README.md LICENSE ./
COPY loraplex loraplex
COPY scheduler scheduler
RUN python -m pip --python /opt/loraplex install --no-cache-dir --no-deps .

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --create-home loraplex && install -d -o loraplex /var/lib/loraplex
COPY --from=build /opt/loraplex /opt/loraplex
ENV PATH=/opt/loraplex/bin:$PATH PYTHONUNBUFFERED=1 LORAPLEX_HOME=/var/lib/loraplex LORAPLEX_ALIVE_FILE=/tmp/alive
USER loraplex
# Writable where the root file system is not (Fargate makes it of this).
VOLUME /tmp
# Healthy: its loop turns, or that of the task worker.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD [ -n "$(find "$LORAPLEX_ALIVE_FILE" -newermt -30sec)" ]
CMD ["python", "-m", "scheduler"]
