"""One way to log: time, level, process, text and what is bound to it (the request's id), as a line
or as JSON. Prompts and answers are never logged."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog

Format = Literal["line", "json"]

_NOISY = ("httpx", "alembic", "botocore", "celery.redirected", "filelock")


def configure(process: str, level: str, form: Format = "line") -> None:
    """Of this process: the root logger, on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(process, form))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel("WARNING")


def logs_to(handler: logging.Handler) -> Any:
    """The same lines to another handler, too. Returns it."""
    root = logging.getLogger()
    handler.setFormatter(root.handlers[0].formatter if root.handlers else None)
    root.addHandler(handler)
    return handler


def _formatter(process: str, form: Format) -> logging.Formatter:
    def named(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["process"] = process
        return event

    local = form == "line"
    time = structlog.processors.TimeStamper(
        "%Y-%m-%d %H:%M:%S.%f" if local else "iso", utc=not local
    )
    before: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        *([] if local else [structlog.stdlib.add_logger_name]),
        time,
        named,
    ]
    render: Any = _line if local else structlog.processors.JSONRenderer(ensure_ascii=False)
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=before,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            render,
        ],
    )


def _line(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    time, level, process = (event.pop(name) for name in ("timestamp", "level", "process"))
    text, trace = event.pop("event"), event.pop("exception", None)
    bound = "".join(f" {name}={value}" for name, value in sorted(event.items()))
    line = f"{time[:-3]} {level.upper():<7} {process} {text}{bound}"
    return f"{line}\n{trace}" if trace else line
