"""The console's built files (`console/`, Vite), with headers that let them load nothing else."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse, Response
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles

FOLDER = Path(__file__).parent / "static"
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
}
_UNBUILT = """<!doctype html><title>Loraplex</title><h1>Loraplex is up</h1>
<p>The console was not built: run <code>make console</code> (Node from your system, or from PyPI),
then start again. The API is all there: <a href="/openapi.json">/openapi.json</a>.</p>"""


class _Assets(StaticFiles):
    """Their names hold their content's hash."""

    def file_response(self, *args: object, **options: object) -> Response:
        response = super().file_response(*args, **options)  # type: ignore[arg-type]
        response.headers["cache-control"] = "public, max-age=31536000, immutable"
        response.headers["x-content-type-options"] = "nosniff"
        return response


def add_to(app: FastAPI) -> None:
    """The page itself is open to all: what it shows needs a login."""
    app.add_api_route("/", page, include_in_schema=False)
    app.add_api_route("/docs", docs, include_in_schema=False)
    app.add_api_route("/favicon.svg", icon, include_in_schema=False)
    files = _Assets(directory=FOLDER / "assets", check_dir=False)
    app.mount("/assets", GZipMiddleware(files, minimum_size=500))


async def page() -> Response:
    return _page("index.html")


async def docs() -> Response:
    """Swagger UI: from here, not from a CDN, whose scripts would act with a login's cookie."""
    return _page("docs.html")


def _page(name: str) -> Response:
    if not (FOLDER / name).is_file():
        return HTMLResponse(_UNBUILT, headers=_HEADERS)
    return FileResponse(FOLDER / name, headers=_HEADERS | {"cache-control": "no-cache"})


async def icon() -> Response:
    return FileResponse(FOLDER / "favicon.svg")
