"""An answer's text → what is said, and the calls of tools in it, piece by piece."""

import json
import re
from dataclasses import dataclass, field

from api.requests.tool_families import ToolFamily

_HEAD = re.compile(
    r'\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*', re.DOTALL
)


@dataclass(frozen=True, slots=True)
class CallPart:
    """A part of a call: its first one has the name; arguments are JSON text."""

    index: int  # among the answer's calls
    name: str | None
    arguments: str


@dataclass(slots=True)
class Parsed:
    text: str = ""
    calls: list[CallPart] = field(default_factory=list)


class ToolCallParser:
    """One per answer. What can't be read as a call is text."""

    def __init__(self, family: ToolFamily) -> None:
        self._mark = family.mark
        self._each_is_marked = family.each_is_marked
        self._held = ""  # the beginning of a mark, perhaps
        self._said = False  # some text, since the latest call
        self._space = ""  # held back until more text comes: around calls it is none
        self._in_calls = False
        self._call: _Call | None = None
        self.count = 0  # of calls that have begun

    def feed(self, text: str) -> Parsed:
        parsed = Parsed()
        for character in text:
            self._take(character, parsed)
        if self._call is not None:
            self._report(self._call, parsed)
        return parsed

    def flush(self) -> Parsed:
        """The answer has ended: what was held back is what it looks like."""
        parsed = Parsed()
        if self._call is not None and not self._call.named:
            parsed.text += self._call.raw
        if not self._in_calls:
            self._say(self._held, parsed)
            parsed.text += self._space if not self.count else ""
        self._held, self._space, self._call = "", "", None
        return parsed

    def _take(self, character: str, parsed: Parsed) -> None:
        if self._call is not None:
            self._call.take(character)
            if self._call.ended:
                self._end(self._call, parsed)
        elif self._in_calls:
            if character == "{":
                self._held, self._call = "", _Call(self.count)
                self._call.take(character)
            elif self._each_is_marked:  # what ends the call, then text again or another mark
                self._held += character
                if self._held.strip().startswith("</") and character == ">":
                    self._held, self._in_calls = "", False
        else:
            self._look_for_mark(character, parsed)

    def _look_for_mark(self, character: str, parsed: Parsed) -> None:
        if not self._mark:
            if character == "{" and not self._said:
                self._in_calls = True
                self._take(character, parsed)
                return
            self._say(character, parsed)
            return
        self._held += character
        if self._held.endswith(self._mark):
            self._say(self._held.removesuffix(self._mark), parsed)
            self._held, self._in_calls = "", True
            self._space, self._said = "", False
            return
        keep = _possible(self._held, self._mark)
        self._say(self._held[: len(self._held) - keep], parsed)
        self._held = self._held[len(self._held) - keep :]

    def _say(self, text: str, parsed: Parsed) -> None:
        """Space around calls is no text."""
        for character in text:
            if character.isspace() and not self._said:
                self._space = ""  # before all text
            elif character.isspace():
                self._space += character
            else:
                parsed.text += self._space + character
                self._space, self._said = "", True

    def _report(self, call: "_Call", parsed: Parsed) -> None:
        part = call.news()
        if part is not None:
            self.count = call.index + 1
            parsed.calls.append(part)

    def _end(self, call: "_Call", parsed: Parsed) -> None:
        self._report(call, parsed)
        if not call.named:
            parsed.text += call.raw
        self._call = None


class _Call:
    """The JSON of one call, as far as it has come."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.raw = ""
        self.named = False
        self.ended = False
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._start = 0  # of its arguments
        self._given = 0  # characters of them

    def take(self, character: str) -> None:
        self.raw += character
        if self._in_string:
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == '"':
                self._in_string = False
        elif character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            self.ended = self._depth == 0

    def news(self) -> CallPart | None:
        """What has not been told."""
        if self._start == 0:
            head = _HEAD.match(self.raw)
            if head is not None and self.raw[head.end() : head.end() + 1] not in ("", '"'):
                self._start, self.named = head.end(), True
                name = json.loads(head[1])
                return CallPart(self.index, name, self._more())
            return self._whole() if self.ended else None
        more = self._more()
        return CallPart(self.index, None, more) if more else None

    def _more(self) -> str:
        known = self.raw[self._start :]
        known = known[:-1].rstrip() if self.ended else known.rstrip()
        more, self._given = known[self._given :], len(known)
        return more

    def _whole(self) -> CallPart | None:
        """In another order than expected, or with its arguments as a text."""
        try:
            found = json.loads(self.raw)
            name = found["name"]
            arguments = found.get("arguments", found.get("parameters", {}))
        except (ValueError, KeyError, TypeError):
            return None
        if not isinstance(name, str):
            return None
        self.named = True
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        return CallPart(self.index, name, text)


def _possible(text: str, mark: str) -> int:
    """Length of the longest tail that the mark begins with."""
    for size in range(min(len(text), len(mark) - 1), 0, -1):
        if mark.startswith(text[-size:]):
            return size
    return 0
