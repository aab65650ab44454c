# The scaler. No torch inside.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN python -m venv /opt/loraplex && /opt/loraplex/bin/pip install --no-cache-dir '.[scheduler,postgres]'

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --create-home loraplex && install -d -o loraplex /var/lib/loraplex
COPY --from=build /opt/loraplex /opt/loraplex
ENV PATH=/opt/loraplex/bin:$PATH PYTHONUNBUFFERED=1 LORAPLEX_HOME=/var/lib/loraplex
USER loraplex
# Healthy: some scaler holds the leadership.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["python", "-m", "scheduler.health"]
CMD ["python", "-m", "scheduler"]
