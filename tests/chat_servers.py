"""Endpoints on loopback: one that answers by a script, and `transformers serve`."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from weakteach.models.tiny.pretraining import build_tokenizer


@dataclass
class Request:
    body: dict[str, Any]
    authorization: str | None
    at: float

    @property
    def user(self) -> str:
        return self.body["messages"][-1]["content"]


@dataclass
class Response:
    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def completion(text: Any, tokens: Any = None, usage: Any = (100, 2)) -> Response:
    """A chat completion; ``tokens`` are pairs of a token and its alternatives."""
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}}
    if tokens is not None:
        listed = [
            {
                "token": token,
                "logprob": alternatives[token],
                "top_logprobs": [{"token": t, "logprob": p} for t, p in alternatives.items()],
            }
            for token, alternatives in tokens
        ]
        choice["logprobs"] = {"content": listed}
    body: dict[str, Any] = {"object": "chat.completion", "choices": [choice]}
    if usage:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return Response(body)


Script = Callable[[Request, int], Response]


class ScriptedServer:
    """Answers each request by ``script(request, how often that very question came before)``."""

    def __init__(self, script: Script) -> None:
        self.script, self.requests = script, []
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                request = Request(body, self.headers["Authorization"], time.monotonic())
                with server._lock:
                    before = sum(other.body == body for other in server.requests)
                    server.requests.append(request)
                response = server.script(request, before)
                sent = response.body
                data = sent.encode() if isinstance(sent, str) else json.dumps(sent).encode()
                self.send_response(response.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                for name, value in response.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass  # a client that went away

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def times_asked(self) -> list[int]:
        """How often each different question came."""
        texts = [json.dumps(request.body) for request in self.requests]
        return [texts.count(text) for text in dict.fromkeys(texts)]


@contextmanager
def scripted(script: Script) -> Iterator[ScriptedServer]:
    server = ScriptedServer(script)
    thread = threading.Thread(target=server._server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server._server.shutdown()
        server._server.server_close()


def tiny_chat_model(
    folder: Path, last: tuple[str, ...] = ("1", "2"), before: tuple[str, ...] = ()
) -> Path:
    """A random llama with a chat template. What it says ends with one of ``last``, and before that
    come as many of ``before`` as it draws; by default it says "1" or "2" and no more."""
    tokenizer = build_tokenizer()
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['content'] }}\n\n{% endfor %}Assistant:"
    )
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=8192,
        initializer_range=0.5,
        bos_token_id=2,
        eos_token_id=2,
        pad_token_id=1,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    ends, said = (tokenizer.convert_tokens_to_ids([*t]) for t in (last, (*last, *before)))
    model.generation_config = GenerationConfig(
        eos_token_id=ends,
        pad_token_id=1,
        suppress_tokens=[token for token in range(len(tokenizer)) if token not in said],
    )
    model.save_pretrained(folder)
    return folder


@contextmanager
def transformers_server(folder: Path) -> Iterator[str]:
    """The URL of `transformers serve` with that model, which it knows by the folder's path."""
    from transformers.cli.serve import Serve

    serve = Serve(
        force_model=str(folder), device="cpu", host="127.0.0.1", port=0, non_blocking=True
    )
    try:
        until = time.monotonic() + 60
        while not serve.server.started:
            assert time.monotonic() < until, "transformers serve did not start"
            time.sleep(0.02)
        port = serve.server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        serve.kill_server()
        shutil.rmtree(folder, ignore_errors=True)
