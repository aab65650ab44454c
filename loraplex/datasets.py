"""Training data: JSON lines or CSV, whose rows all have the same columns.

A row is one of: `prompt` and `completion`; `messages` as in a chat; `text`. Pure but for reading.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

MAX_ROW = 2**20  # characters
MAX_ROWS = 10**6
MAX_COLUMNS = 64  # of CSV
_SHOWN = 5  # mistakes
_KINDS = (("prompt", "completion"), ("messages",), ("text",))
_NOT_READ = (".tsv", ".xlsx", ".parquet", ".zip", ".gz")
_ROLES = ("system", "user", "assistant", "tool")


class DatasetInvalid(Exception):
    """The text names the lines."""


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    columns: tuple[str, ...]
    rows: int


def is_csv(filename: str) -> bool:
    return filename.lower().endswith(".csv")


def inspect(path: Path, filename: str) -> DatasetFacts:
    """By the file's name: CSV or JSON lines. Raises DatasetInvalid."""
    columns: tuple[str, ...] | None = None
    rows = 0
    wrong: list[str] = []
    if filename.lower().endswith(_NOT_READ):
        raise DatasetInvalid("JSON lines (.jsonl) or CSV (.csv).")
    for line, row in read(path, filename):
        rows += 1
        found, reason = _check(row, columns)
        columns = columns or found
        if reason:
            wrong.append(f"line {line}: {reason}")
        if len(wrong) >= _SHOWN or rows > MAX_ROWS:
            break
    if wrong:
        raise DatasetInvalid("; ".join(wrong))
    if rows > MAX_ROWS:
        raise DatasetInvalid(f"More than {MAX_ROWS} rows.")
    if columns is None:
        raise DatasetInvalid("There are no rows.")
    return DatasetFacts(columns, rows)


def read(path: Path, filename: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Line and row; a row that can't be read is the reason why. Empty lines are none."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        yield from _csv(file) if is_csv(filename) else _json_lines(file)


def _json_lines(file: TextIO) -> Iterator[tuple[int, dict[str, Any] | str]]:
    number = 0
    while line := file.readline(MAX_ROW + 1):
        number += 1
        if len(line) > MAX_ROW:
            yield number, f"over {MAX_ROW} characters"
            return
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=_no_number)
        except (ValueError, RecursionError) as broken:
            yield number, f"no JSON: {broken}"
            continue
        yield number, row if isinstance(row, dict) else "no JSON object"


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON's")


def _csv(file: TextIO) -> Iterator[tuple[int, dict[str, Any] | str]]:
    csv.field_size_limit(MAX_ROW)
    lines = _BoundedLines(file)
    reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, [])
        if len(header) > MAX_COLUMNS:
            yield 1, f"over {MAX_COLUMNS} columns"
            return
        if len({*header}) < len(header):
            yield 1, "two columns have the same name"
            return
        if "messages" in header:
            yield 1, "messages are for JSON lines"
            return
        for row in reader:
            lines.begin_row()
            if not row:
                continue
            if len(row) != len(header):
                yield reader.line_num, f"{len(row)} fields, the header has {len(header)}"
            else:
                yield reader.line_num, dict(zip(header, row, strict=True))
    except csv.Error as broken:
        yield reader.line_num, f"no CSV: {broken}"


class _BoundedLines:
    """Lines of a file, as long as the row that they make isn't over MAX_ROW characters."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._size = 0

    def begin_row(self) -> None:
        self._size = 0

    def __iter__(self) -> Iterator[str]:
        while line := self._file.readline(MAX_ROW + 1):
            self._size += len(line)
            if self._size > MAX_ROW:
                raise csv.Error(f"a row of over {MAX_ROW} characters")
            yield line


def kind_of(row: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The columns that count. None: it has none of them."""
    return next((names for names in _KINDS if set(names) <= set(row)), None)


def mistake(row: dict[str, Any]) -> str:
    """What is wrong with a row by itself; empty: nothing."""
    return _check(row, None)[1]


def _check(
    row: dict[str, Any] | str, columns: tuple[str, ...] | None
) -> tuple[tuple[str, ...] | None, str]:
    """The row's kind, and what is wrong with it."""
    if isinstance(row, str):
        return None, row
    kind = kind_of(row)
    if kind is None:
        has = ", ".join(sorted(ascii(name)[1:-1] for name in islice(row, 20)))[:200]
        return None, f"it needs prompt and completion, or messages, or text; it has: {has}"
    if columns is not None and kind != columns:
        return kind, f"its columns are {', '.join(kind)}, those before it {', '.join(columns)}"
    if kind == ("messages",):
        return kind, _check_messages(row["messages"])
    for name in kind:
        if not _is_text(row[name]) or (name != "prompt" and not row[name]):
            return kind, f"{name} must be a text, in UTF-8, that isn't empty"
    return kind, ""


def _is_text(given: object) -> bool:
    """That is valid Unicode: bytes that weren't UTF-8 came as lone surrogates."""
    try:
        return isinstance(given, str) and given.encode() is not None
    except UnicodeEncodeError:
        return False


def _check_messages(messages: object) -> str:
    if not isinstance(messages, list) or not messages:
        return "messages must be a list that isn't empty"
    for each in messages:
        if not isinstance(each, dict) or each.get("role") not in _ROLES:
            return f"each message needs a role ({', '.join(_ROLES)})"
        if not _is_text(each.get("content")):
            return "each message needs a content that is a text"
    return "" if messages[-1]["role"] == "assistant" else "the last message isn't the assistant's"
