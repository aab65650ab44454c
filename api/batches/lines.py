"""The lines of a batch's file, checked before anything is run, and read again one by one."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

MOST_LINES = 50_000
_MOST_ERRORS = 100
MOST_LINE_BYTES = 2**20  # of a line


@dataclass(frozen=True, slots=True)
class Line:
    """Where a request is in its file."""

    custom_id: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class LineError:
    line: int  # from 1
    code: str
    message: str
    param: str | None = None


def check(file: BinaryIO, endpoint: str) -> tuple[list[Line], list[LineError]]:
    """What is to be run; where something is wrong, what (the first hundred)."""
    found: list[Line] = []
    errors: list[LineError] = []
    seen: set[str] = set()
    for number, offset, raw in _lines(file):
        if len(errors) >= _MOST_ERRORS:
            break
        if len(found) >= MOST_LINES:
            errors.append(LineError(number, "too_many", f"At most {MOST_LINES} requests."))
            break
        name = _custom_id(number, raw, endpoint)
        if isinstance(name, str) and name in seen:
            message = f"custom_id {name!r} is there already."
            name = LineError(number, "duplicate_custom_id", message, "custom_id")
        if isinstance(name, LineError):
            errors.append(name)
            continue
        seen.add(name)
        found.append(Line(name, offset, len(raw)))
    if not found and not errors:
        errors.append(LineError(1, "empty_file", "The file has no requests."))
    return found, errors


def body_of(file: BinaryIO, line: Line) -> dict[str, Any]:
    """Of a line that was checked."""
    file.seek(line.offset)
    body: dict[str, Any] = json.loads(file.read(line.length))["body"]
    return body


def _lines(file: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """Number, offset, bytes; one that is too long is cut, and the last."""
    number = 0
    while True:
        offset = file.tell()
        raw = file.readline(MOST_LINE_BYTES + 1)
        number += 1
        if not raw:
            return
        if raw.strip():
            yield number, offset, raw
        if len(raw) > MOST_LINE_BYTES:
            return


def _custom_id(number: int, raw: bytes, endpoint: str) -> str | LineError:
    def wrong(message: str, param: str | None = None, code: str = "invalid_value") -> LineError:
        return LineError(number, code, message, param)

    if len(raw) > MOST_LINE_BYTES:
        return wrong(f"The line is over {MOST_LINE_BYTES} bytes.", code="line_too_long")
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError) as broken:
        return wrong(f"The line is not valid JSON: {broken}", code="invalid_json_line")
    if not isinstance(line, dict):
        return wrong("The line is not a JSON object.", code="invalid_json_line")
    name, body = line.get("custom_id"), line.get("body")
    if not isinstance(name, str) or not 0 < len(name) <= 512:
        return wrong("custom_id: a text of 1 to 512 characters.", "custom_id")
    if line.get("method") != "POST":
        return wrong("method: POST.", "method")
    if line.get("url") != endpoint:
        return wrong(f"url: {endpoint}, the batch's endpoint.", "url")
    if not isinstance(body, dict):
        return wrong("body: an object, as the endpoint takes it.", "body")
    if body.get("stream"):
        return wrong("stream: answers of a batch don't stream.", "body.stream")
    return name
