"""Where adapters are imported from, as users write it, and what an operator allows.

`hub:org/name` or `hub:org/name@revision`, `s3://bucket/folder`, a folder on the server (`/data/x`);
of the latter two also an archive (`/data/x.zip`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from loraplex.store.models import is_hub_name

_REVISION = re.compile(r"[\w][\w./-]{0,199}", re.ASCII)
_S3 = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(?P<key>[^\0]{1,900})")
_LONGEST = 1024


class SourceRefused(Exception):
    """The text says what is wrong, and what would be right."""


class SourceKind(StrEnum):
    HUB = "hub"
    S3 = "s3"
    LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Source:
    kind: SourceKind
    name: str  # org/name, s3://bucket/folder, /folder
    revision: str = ""  # of the hub; "": its newest

    def __str__(self) -> str:
        if self.kind is not SourceKind.HUB:
            return self.name
        return f"hub:{self.name}@{self.revision}" if self.revision else f"hub:{self.name}"

    @property
    def repo(self) -> str:
        """A name of a repo for what comes from there."""
        last = [part for part in re.split(r"[^A-Za-z0-9._-]+", self.name) if part][-2:]
        return "-".join(last)[-63:].strip("._-") or "imported"


def parse(text: str) -> Source:
    """Raises SourceRefused."""
    if len(text) > _LONGEST or not text.isprintable():
        raise SourceRefused(f"A source has at most {_LONGEST} printable characters.")
    if text.startswith("s3://"):
        if not _S3.fullmatch(text) or ".." in text:
            raise SourceRefused(f"{text!r}: s3://BUCKET/FOLDER, the folder with the two files.")
        return Source(SourceKind.S3, text.rstrip("/"))
    if text.startswith("hub:"):
        name, at, revision = text.removeprefix("hub:").partition("@")
        wrong_revision = at and not _REVISION.fullmatch(revision)
        if not is_hub_name(name) or wrong_revision or ".." in revision:
            raise SourceRefused(f"{text!r}: hub:ORG/NAME or hub:ORG/NAME@REVISION.")
        return Source(SourceKind.HUB, name, revision)
    if text.startswith("/"):
        return Source(SourceKind.LOCAL, str(Path(text)))
    raise SourceRefused(f"{text!r}: hub:ORG/NAME, s3://BUCKET/FOLDER, or /A/FOLDER of the server.")


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the operator lets a tenant import. `local`: folders of the server, but for those below
    `home`, where everybody's adapters lie; `{tenant}` in a prefix is its name."""

    tenant: str
    local: bool
    home: Path
    s3_prefixes: Sequence[str]


def check_allowed(source: Source, allowed: Allowed) -> None:
    """Raises SourceRefused."""
    if source.kind is SourceKind.LOCAL:
        inside = Path(source.name).resolve().is_relative_to(allowed.home.resolve())
        if not allowed.local or inside:
            reason = "Folders of the server are not imported from here; the hub and S3 are."
            raise SourceRefused(reason)
    if source.kind is SourceKind.S3:
        prefixes = [
            prefix.replace("{tenant}", allowed.tenant).rstrip("/") for prefix in allowed.s3_prefixes
        ]
        if not any(f"{source.name}/".startswith(f"{prefix}/") for prefix in prefixes):
            shown = ", ".join(prefixes) or "none are set"
            raise SourceRefused(
                f"{source} isn't below an allowed prefix (LORAPLEX_S3_SOURCES: {shown})."
            )
