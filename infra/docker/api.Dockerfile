# The HTTP process and its console. No torch inside.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY infra/docker/api.lock infra/docker/
RUN python -m venv --without-pip /opt/loraplex \
    && python -m pip --python /opt/loraplex install --no-cache-dir --no-deps --require-hashes -r infra/docker/api.lock
COPY infra/docker/sbom.sh infra/docker/
RUN infra/docker/sbom.sh
COPY infra/console.sh infra/
COPY console console
COPY api/console api/console
RUN [ -f api/console/static/index.html ] || infra/console.sh
COPY pyproject.toml README.md LICENSE ./
COPY loraplex loraplex
COPY api api
RUN python -m pip --python /opt/loraplex install --no-cache-dir --no-deps .

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --create-home loraplex && install -d -o loraplex /var/lib/loraplex
COPY --from=build /opt/loraplex /opt/loraplex
ENV PATH=/opt/loraplex/bin:$PATH PYTHONUNBUFFERED=1 LORAPLEX_HOME=/var/lib/loraplex LORAPLEX_HOST=0.0.0.0
USER loraplex
# Writable where the root file system is not (Fargate makes it of this).
VOLUME /tmp
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=2)"]
CMD ["python", "-m", "api"]
