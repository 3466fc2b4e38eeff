"""A real S3 server on loopback, and a proxy before it that answers as a bad day does."""

import http.client
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

BUCKET = "weakteach"
LOOPBACK = "127.0.0.1"
# What may happen to a request: an answer in its place, a late one, a connection that is cut before
# the server has it, after, within the answer, or within what is sent.
FAULTS = ("500", "503", "slow", "cut before", "cut after", "cut answer", "cut upload")
ERRORS = {"500": "InternalError", "503": "SlowDown", "403": "AccessDenied"}
WRITES = ("PUT", "POST", "DELETE")
SLOW_SECONDS = (0.2, 1.5)
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client may be killed
            super().handle_error(request, client_address)


class FaultyProxy:
    """Forwards to a server; with probability ``rate`` a request meets a fault drawn by the seed.

    Within one client's requests the draws follow their order. ``read_only`` refuses all writes,
    ``down`` answers 503 to everything; ``counts`` tells the faults so far.
    """

    def __init__(self, port: int, seed: int = 0, rate: float = 0.0) -> None:
        self.rate, self.read_only, self.down = rate, False, False
        self.counts: Counter[str] = Counter()
        self.target, self._chance, self._lock = port, random.Random(seed), threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                proxy.answer(self)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

            def log_message(self, *_: Any) -> None:
                pass

        self._server = _Server((LOOPBACK, 0), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def storage(self, folder: str) -> str:
        """The URL of a storage behind the proxy."""
        options = f"endpoint_override={LOOPBACK}%3A{self.port}&scheme=http&region=us-east-1"
        return f"s3://{BUCKET}/{folder}?{options}"

    def _fault(self, method: str) -> str | None:
        with self._lock:
            self.counts["requests"] += 1
            if self.down:
                found: str | None = "503"
            elif self.read_only and method in WRITES:
                found = "403"
            else:
                meets = self._chance.random() < self.rate
                kinds = [f for f in FAULTS if f != "cut upload" or method == "PUT"]
                found = self._chance.choice(kinds) if meets else None
            if found:
                self.counts[found] += 1
            return found

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request, or do not."""
        fault = self._fault(request.command)
        with suppress(ConnectionError):
            if fault == "cut upload":
                request.rfile.read(_first_length(request) // 2)
                return _cut(request)
            body = _body(request)
            if fault == "cut before":
                return _cut(request)
            if fault in ERRORS:
                return _refuse(request, fault)
            if fault == "slow":
                time.sleep(self._chance.uniform(*SLOW_SECONDS))
            status, headers, data = self._forward(request, body)
            if fault == "cut after":
                return _cut(request)
            request.send_response(status)
            for name, value in headers:
                request.send_header(name, value)
            request.end_headers()
            if request.command != "HEAD":
                if fault == "cut answer":
                    request.wfile.write(data[: len(data) // 2])
                    return _cut(request)
                request.wfile.write(data)
        return None

    def _forward(
        self, request: BaseHTTPRequestHandler, body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(LOOPBACK, self.target, timeout=60)
        try:
            headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP}
            connection.request(request.command, request.path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
            kept = [(k, v) for k, v in answer.getheaders() if k.lower() not in HOP_BY_HOP]
            length = answer.getheader("content-length") if request.command == "HEAD" else None
            return answer.status, [*kept, ("content-length", length or str(len(data)))], data
        finally:
            connection.close()


def _body(request: BaseHTTPRequestHandler) -> bytes:
    if request.headers.get("transfer-encoding", "").lower() != "chunked":
        return request.rfile.read(_first_length(request))
    found = b""
    while length := int(request.rfile.readline().split(b";")[0], 16):
        found += request.rfile.read(length)
        request.rfile.readline()
    while request.rfile.readline().strip():
        pass
    return found


def _first_length(request: BaseHTTPRequestHandler) -> int:
    """Bytes that surely come: all of a body, or the head of its first chunk."""
    chunked = "transfer-encoding" in request.headers
    return 2 if chunked else int(request.headers.get("content-length") or 0)


def _refuse(request: BaseHTTPRequestHandler, status: str) -> None:
    code = ERRORS[status]
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
    data = b"" if request.command == "HEAD" else text.encode()
    request.send_response(int(status))
    request.send_header("content-type", "application/xml")
    request.send_header("content-length", str(len(data)))
    request.end_headers()
    request.wfile.write(data)


def _cut(request: BaseHTTPRequestHandler) -> None:
    request.close_connection = True
    with suppress(OSError):
        request.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def faulty_bucket(seed: int = 0, rate: float = 0.0) -> Iterator[FaultyProxy]:
    """An empty bucket behind a proxy. Clients need credentials, which may be any."""
    server = ThreadedMotoServer(ip_address=LOOPBACK, port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    client(port).create_bucket(Bucket=BUCKET)
    proxy = FaultyProxy(port, seed, rate)
    try:
        yield proxy
    finally:
        proxy.close()
        server.stop()


def client(port: int) -> Any:
    """A client of the server itself, where nothing fails."""
    return boto3.client(
        "s3", endpoint_url=f"http://{LOOPBACK}:{port}", region_name="us-east-1",
        aws_access_key_id="test", aws_secret_access_key="test",
    )  # fmt: skip


def names(proxy: FaultyProxy, folder: str) -> set[str]:
    """Names below the folder of all objects, as the server has them."""
    pages = client(proxy.target).get_paginator("list_objects_v2")
    keys = {
        item["Key"].removeprefix(f"{folder}/")
        for page in pages.paginate(Bucket=BUCKET, Prefix=f"{folder}/")
        for item in page.get("Contents", [])
    }
    return {key for key in keys if key and not key.endswith("/")}


def objects(proxy: FaultyProxy, folder: str) -> dict[str, bytes]:
    """Names and contents of all objects below the folder, while nobody writes there."""
    direct = client(proxy.target)
    return {
        name: direct.get_object(Bucket=BUCKET, Key=f"{folder}/{name}")["Body"].read()
        for name in names(proxy, folder)
    }
