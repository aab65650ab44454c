"""A folder as an S3 bucket to read: GET with ranges and HEAD, by sendfile, a thread a connection.

moto answers a range by copying the whole object first, so that it is no measure for ranges. This
one can be as slow as S3 is: so many MB/s a connection, so long until the first byte.
"""

import os
import re
import sys
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_BLOCK = 2**18


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path, mb_s: float, first_byte_s: float) -> None:
        super().__init__(("127.0.0.1", 0), Bucket)
        self.folder, self.bytes_s, self.first_byte_s = folder, mb_s * 1e6, first_byte_s


class Bucket(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        """Nothing is told."""

    def _answer(self, *, body: bool) -> None:
        file = self.server.folder / self.path.partition("?")[0].lstrip("/")
        if not file.is_file():
            self.send_response(404)
            self.send_header("content-length", "0")
            self.end_headers()
            return
        size = file.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        start, last = (int(asked[1]), int(asked[2] or size - 1)) if asked else (0, size - 1)
        last = min(last, size - 1)
        time.sleep(self.server.first_byte_s)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("content-range", f"bytes {start}-{last}/{size}")
        self.send_header("content-length", str(last + 1 - start))
        self.send_header("last-modified", formatdate(file.stat().st_mtime, usegmt=True))
        self.send_header("etag", f'"{file.stat().st_mtime_ns:x}"')
        self.end_headers()
        if body:
            self._send(file, start, last + 1)

    def _send(self, file: Path, start: int, end: int) -> None:
        begun, at = time.perf_counter(), start
        with file.open("rb") as opened:
            while at < end:
                most = min(end - at, _BLOCK if self.server.bytes_s else 2**30)
                at += os.sendfile(self.connection.fileno(), opened.fileno(), at, most)
                if self.server.bytes_s:
                    ahead = (at - start) / self.server.bytes_s - (time.perf_counter() - begun)
                    time.sleep(max(0.0, ahead))


if __name__ == "__main__":
    server = Server(Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
    print(server.server_address[1], flush=True)
    server.serve_forever()
