# The HTTP process. No torch inside.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN [ -f api/console/static/index.html ] || infra/console.sh
RUN python -m venv /opt/loraplex && /opt/loraplex/bin/pip install --no-cache-dir '.[api,postgres]'

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --create-home loraplex && install -d -o loraplex /var/lib/loraplex
COPY --from=build /opt/loraplex /opt/loraplex
ENV PATH=/opt/loraplex/bin:$PATH PYTHONUNBUFFERED=1 LORAPLEX_HOME=/var/lib/loraplex LORAPLEX_HOST=0.0.0.0
USER loraplex
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=2)"]
CMD ["python", "-m", "api"]
