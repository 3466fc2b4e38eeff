"""A stand-in for the model hub on loopback: as much of its protocol as huggingface_hub uses."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from unittest.mock import patch

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Repository:
    """Files of a folder as a repository; ``gated`` ones tell their listing and refuse files."""

    folder: Path
    gated: bool = False

    def files(self) -> list[str]:
        paths = (p for p in self.folder.rglob("*") if p.is_file())
        return sorted(path.relative_to(self.folder).as_posix() for path in paths)


@contextmanager
def serving(**kinds: dict[str, Repository]) -> Iterator[tuple[str, set[str]]]:
    """A hub with ``models`` and ``datasets``: its URL, and the files that were asked for."""
    fetched: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def send(self, code: int, body: bytes, headers: dict[str, str], with_body: bool) -> None:
            self.send_response(code)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def answer(self, with_body: bool) -> None:
            parts = self.path.split("?")[0].strip("/").split("/")
            api = parts[0] == "api"
            kind = "datasets" if "datasets" in parts[:2] else "models"
            if api:
                parts = parts[2:]
            elif kind == "datasets":
                parts = parts[1:]
            name, rest = "/".join(parts[:2]), parts[2:]
            repository = kinds.get(kind, {}).get(name)
            if repository is None:
                return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body)
            refused = {"X-Error-Code": "GatedRepo", "X-Error-Message": f"{name} is gated"}
            if api:
                if rest[:1] == ["auth-check"]:
                    code, headers = (403, refused) if repository.gated else (200, {})
                    return self.send(code, b"{}", headers, with_body)
                body: Any = {
                    "id": name,
                    "sha": COMMIT,
                    "private": False,
                    "gated": "manual" if repository.gated else False,
                    "tags": [],
                    "downloads": 0,
                    "likes": 0,
                    "siblings": [{"rfilename": file} for file in repository.files()],
                }
                if rest[:1] == ["tree"]:
                    body = [
                        {"type": "file", "path": file, "oid": "0" * 40,
                         "size": (repository.folder / file).stat().st_size}
                        for file in repository.files()
                        if "/".join(rest[2:]) in ("", *map(str, Path(file).parents))
                    ]  # fmt: skip
                text = json.dumps(body).encode()
                return self.send(200, text, {"Content-Type": "application/json"}, with_body)
            if repository.gated:
                return self.send(403, b"", refused, with_body)
            file = "/".join(rest[2:])
            if file not in repository.files():
                return self.send(404, b"", {"X-Error-Code": "EntryNotFound"}, with_body)
            content = (repository.folder / file).read_bytes()
            if with_body:
                fetched.add(f"{name}/{file}")
            etag = hashlib.sha256(content).hexdigest()[:40]
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
            return self.send(200, content, headers, with_body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", fetched
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def hub(cache: Path, **kinds: dict[str, Repository]) -> Iterator[set[str]]:
    """A hub which huggingface_hub asks meanwhile, in this process, and whose files it keeps under
    ``cache``. Gives the files that were asked for."""
    constants = "huggingface_hub.constants"
    with serving(**kinds) as (url, fetched):
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        with (
            patch(f"{constants}.ENDPOINT", url),
            patch(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template),
            patch(f"{constants}.HF_HUB_CACHE", str(cache)),
            patch(f"{constants}.HF_HUB_OFFLINE", False),
            patch("huggingface_hub.hf_api.api.endpoint", url),
        ):
            yield fetched
