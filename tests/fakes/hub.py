"""A model hub on loopback: as much of the Hugging Face Hub's API as `huggingface_hub` needs to read
small repos. Private ones want a token."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hub:
    url: str = ""
    repos: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)  # of private repos
    asked: list[tuple[str, str]] = field(default_factory=list)  # path and Range of each GET
    seen_tokens: set[str] = field(default_factory=set)


@contextmanager
def hub(host: str = "127.0.0.1") -> Iterator[Hub]:
    facts = Hub()
    server = ThreadingHTTPServer((host, 0), _handler(facts))
    facts.url = f"http://{host}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield facts
    server.shutdown()
    server.server_close()


def commit_of(files: Mapping[str, bytes]) -> str:
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


def _handler(facts: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._file(body=False)

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            facts.asked.append((path, self.headers.get("range", "")))
            if path.startswith("/api/models/") and "/tree/" in path:
                self._tree(path.removeprefix("/api/models/").partition("/tree/")[0])
            elif path.startswith("/api/models/"):
                self._info(path.removeprefix("/api/models/").partition("/revision/")[0])
            else:
                self._file(body=True)

        def _info(self, name: str) -> None:
            files = self._repo(name)
            if files is None:
                return
            siblings = [{"rfilename": n, "size": len(c)} for n, c in files.items()]
            info: dict[str, Any] = {"id": name, "sha": commit_of(files), "siblings": siblings}
            self._send(200, json.dumps(info | {"private": False, "tags": []}).encode())

        def _tree(self, name: str) -> None:
            files = self._repo(name)
            if files is not None:
                found = [
                    {"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                    for n, c in files.items()
                ]
                self._send(200, json.dumps(found).encode())

        def _file(self, *, body: bool) -> None:
            name, _, rest = self.path.lstrip("/").partition("/resolve/")
            files = self._repo(name)
            if files is None:
                return
            content = files.get(rest.partition("/")[2])
            if content is None:
                self._send(404, b"", {"x-error-code": "EntryNotFound"})
                return
            start = int(self.headers.get("range", "bytes=0-")[6:].partition("-")[0])
            etag = {"etag": f'"{hashlib.sha256(content).hexdigest()}"'}
            headers = etag | {"x-repo-commit": commit_of(files), "accept-ranges": "bytes"}
            if not body:
                self._send(200, content, headers, head=True)
            elif start:
                span = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self._send(206, content[start:], headers | {"content-range": span})
            else:
                self._send(200, content, headers)

        def _repo(self, name: str) -> Mapping[str, bytes] | None:
            """Answers itself where there is none."""
            token = self.headers.get("authorization", "").removeprefix("Bearer ")
            facts.seen_tokens.add(token)
            found = facts.repos.get(name)
            if found is None or facts.tokens.get(name, token) != token:
                self._send(404, b"", {"x-error-code": "RepoNotFound"})
                return None
            return found

        def _send(
            self, status: int, content: bytes, headers: Mapping[str, str] = {}, head: bool = False
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            if head:
                return
            with suppress(BrokenPipeError, ConnectionResetError):  # the client has gone
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Tests are quiet."""

    return Handler
