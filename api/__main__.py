"""`python -m api`: the HTTP process."""

import uvicorn

from api.app import build
from loraplex.garbage import collect_less
from loraplex.logs import configure
from loraplex.settings import ApiSettings
from loraplex.unknown_settings import checked

if __name__ == "__main__":
    with checked():
        settings = ApiSettings()
    configure("api", settings.log_level, settings.log_format)
    app = build(settings)
    collect_less()
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=settings.log_level == "debug",
        timeout_graceful_shutdown=5,
    )
