"""What watches: takes traces by OTLP, and scrapes every process of a platform each five seconds."""

import argparse
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from loraplex.broker.connection import connect
from loraplex.keys import TARGETS
from loraplex.metrics.target import decode_target

SCRAPED_EACH_S = 5.0


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Quiet."""


def scrape(redis_url: str) -> None:
    client, pause = connect(redis_url), threading.Event()
    while not pause.wait(SCRAPED_EACH_S):
        rows: Any = client.hvals(TARGETS)
        for raw in rows:
            httpx.get(f"http://{decode_target(raw).address}/metrics")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--redis-url", required=True)
    options = parser.parse_args()
    threading.Thread(target=scrape, args=(options.redis_url,), daemon=True).start()
    ThreadingHTTPServer(("127.0.0.1", options.port), Handler).serve_forever()
