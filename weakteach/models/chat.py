"""A chat model behind an OpenAI-compatible endpoint, as a value, and asking it many questions."""

import hashlib
import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pyarrow import fs

from weakteach.artifacts.errors import UserError
from weakteach.artifacts.step import EXECUTION
from weakteach.artifacts.store import Store

# Alternatives asked for at each token of a reply; five is what all endpoints with them allow.
ALTERNATIVES = 5
# After so many failures in a row the endpoint is taken to be down.
GIVE_UP_AFTER = 20
EXCERPT = 200


class ChatError(UserError):
    """The endpoint cannot be asked at all, or its cost cap is reached."""


def _execution(default: Any) -> Any:
    return field(default=default, compare=False, metadata=EXECUTION)


@dataclass(frozen=True)
class Chat:
    """A chat model by the name that its endpoint knows it by.

    ``logprobs`` asks for log-probabilities; an endpoint may leave them out of its replies, and for
    one that refuses the request itself it is to be False. All else says how to ask: ``base_url``
    ends in ``/v1`` for most servers; ``key_variable`` names the environment variable that holds
    the key, empty if the endpoint wants none; ``timeout`` is in seconds for one request,
    ``retries`` how often one is sent again after a 408, 409, 429, 5xx, timeout or lost
    connection. Prices are per million tokens, in any currency; ``max_cost`` is in the same one, for
    one step, and may be passed by the requests that are under way when it is reached. Raises
    ChatError for values that cannot be used.
    """

    model: str
    temperature: float = 0.0
    logprobs: bool = True
    base_url: str = _execution("")
    key_variable: str = _execution("")
    concurrency: int = _execution(8)
    requests_per_minute: float | None = _execution(None)
    timeout: float = _execution(60.0)
    retries: int = _execution(4)
    input_price: float = _execution(0.0)
    output_price: float = _execution(0.0)
    max_cost: float | None = _execution(None)

    def __post_init__(self) -> None:
        url = urlsplit(self.base_url)
        if url.username or url.password or url.query:
            raise ChatError(
                "The endpoint's URL holds a user, a password or a query: it would be written into "
                "records; put the key into an environment variable and name that"
            )
        if self.base_url and (url.scheme not in ("http", "https") or not url.netloc):
            raise ChatError(
                f"The endpoint {self.base_url!r} is not a URL such as http://localhost:8000/v1"
            )
        if not self.model:
            raise ChatError("An endpoint needs the name of the model to ask")
        positive = {"concurrency": self.concurrency, "timeout": self.timeout}
        for name in ("requests_per_minute", "max_cost"):
            if getattr(self, name) is not None:
                positive[name] = getattr(self, name)
        not_negative = ("temperature", "retries", "input_price", "output_price")
        wrong = [name for name, value in positive.items() if not value > 0]
        wrong += [name for name in not_negative if not getattr(self, name) >= 0]
        if wrong:
            raise ChatError(f"{wrong[0]} of the endpoint cannot be {getattr(self, wrong[0])}")
        if self.max_cost is not None and not (self.input_price or self.output_price):
            raise ChatError("A cost cap needs the prices of input and output tokens")

    def __str__(self) -> str:
        return self.model

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """In the currency of the prices."""
        paid = prompt_tokens * self.input_price + completion_tokens * self.output_price
        return paid / 1_000_000


@dataclass(frozen=True)
class Question:
    """One request. Questions that differ in the seed alone are asked separately; the endpoint is
    told the seed when it samples (temperature above 0)."""

    system: str
    user: str
    max_tokens: int
    seed: int = 0


@dataclass(frozen=True)
class Reply:
    """``tokens`` holds for each token of the reply the likeliest alternatives with their
    log-probabilities, and is empty if the endpoint gives none."""

    text: str
    tokens: tuple[tuple[tuple[str, float], ...], ...] = ()
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class ChatSession:
    """Asks the questions of one step over several threads.

    Each answer is written under ``folder`` of the store as soon as it is there, and what lies there
    is not asked again. ``progress`` is told the questions done and those in all. ``last_failure``
    says in words what the last question that got no reply failed by.
    """

    def __init__(
        self,
        chat: Chat,
        store: Store,
        folder: str,
        questions: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        if not chat.base_url:
            raise ChatError(f"Model {chat.model} has no endpoint: give its URL")
        import openai  # slow to import, and not needed to plan

        self.chat = chat
        self._key = os.environ.get(chat.key_variable, "") if chat.key_variable else ""
        if chat.key_variable and not self._key:
            raise ChatError(
                f"The environment variable {chat.key_variable}, which is to hold the key of "
                f"{chat.base_url}, is not set"
            )
        self._filesystem, self._folder = store.filesystem, folder
        self._filesystem.create_dir(folder, recursive=True)
        self._total, self._progress = questions, progress
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._done = self._sent = self._reused = self._answered = self._unmetered = 0
        self._prompt_tokens = self._completion_tokens = self._failed_in_a_row = 0
        self._next_slot = 0.0
        self._failures: Counter[str] = Counter()
        self.last_failure = ""
        self._threads = ThreadPoolExecutor(chat.concurrency, thread_name_prefix="chat")
        # A key is always given: left out, the client would send OPENAI_API_KEY to any endpoint.
        self._client = openai.OpenAI(
            base_url=chat.base_url,
            api_key=self._key or "none",
            timeout=chat.timeout,
            max_retries=chat.retries,
            http_client=openai.DefaultHttpxClient(event_hooks={"request": [self._before_sending]}),
        )

    def __enter__(self) -> "ChatSession":
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._client.close()

    def ask(self, questions: Sequence[Question]) -> list[Reply | None]:
        """A reply to each question, None where it failed after all retries.

        Raises ChatError when the endpoint refuses the key or the model, is down, or the cost cap
        is reached; answers that came until then are kept.
        """
        paths = [f"{self._folder}/{_key(self.chat, q)}.json" for q in questions]
        replies = [self._kept(info) for info in self._filesystem.get_file_info(paths)]
        for reply in replies:
            if reply is not None:
                self._reused += 1
                self._count(reply)
        missing = [index for index, reply in enumerate(replies) if reply is None]
        futures = {
            self._threads.submit(self._answer, questions[index], paths[index]): index
            for index in missing
        }
        self._tell(len(questions) - len(missing))
        try:
            for future in as_completed(futures):
                replies[futures[future]] = future.result()
                self._tell(1)
        except ChatError:
            for future in futures:
                future.cancel()
            raise
        return replies

    @property
    def facts(self) -> dict[str, Any]:
        """What asking took: HTTP requests (retries included), replies by origin, failures by
        cause, tokens, and the cost of all replies, those of earlier tries too."""
        return {
            "requests": self._sent,
            "answered": self._answered,
            "reused": self._reused,
            "failures": dict(sorted(self._failures.items())),
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": self._completion_tokens,
            "unmetered_replies": self._unmetered,
            "cost": self._cost,
        }

    @property
    def _cost(self) -> float:
        return self.chat.cost(self._prompt_tokens, self._completion_tokens)

    def _answer(self, question: Question, path: str) -> Reply | None:
        if self._stop.is_set():
            return None
        try:
            self._check_cap()
            return self._request(question, path)
        except ChatError:
            self._stop.set()  # here and not by the reader, so that no other thread asks on
            raise

    def _request(self, question: Question, path: str) -> Reply | None:
        import openai

        try:
            response = self._client.chat.completions.with_raw_response.create(
                **_body(self.chat, question)
            )
            reply = self._read(response.http_response.text)
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise ChatError(
                f"{self.chat.base_url} refuses the key ({error.status_code}): check "
                f"{self.chat.key_variable or 'whether it needs one'}"
            ) from None
        except openai.NotFoundError as error:
            raise ChatError(
                f"{self.chat.base_url} knows no model {self.chat.model}, or is not the root of an "
                f"OpenAI-compatible API: {self._excerpt(error)}"
            ) from None
        except openai.APIStatusError as error:
            self._fail(f"http {error.status_code}", self._excerpt(error))
        except openai.APITimeoutError:
            self._fail("timeout", f"none came within {self.chat.timeout:g} s")
        except openai.APIConnectionError as error:
            self._fail("connection", str(error.__cause__ or error))
        except (openai.APIError, _NoReply) as error:
            self._fail("malformed", str(error))
        else:
            self._write(path, reply)
            with self._lock:
                self._answered += 1
                self._failed_in_a_row = 0
            self._count(reply)
            return reply
        return None

    def _fail(self, cause: str, message: str) -> None:
        with self._lock:
            self._failures[cause] += 1
            self.last_failure = f"{cause} ({self._clean(message)[:EXCERPT]})"
            self._failed_in_a_row += 1
            down = self._failed_in_a_row >= GIVE_UP_AFTER
        if down:
            raise ChatError(
                f"{self.chat.base_url} failed on {GIVE_UP_AFTER} questions in a row, last by "
                f"{self.last_failure}: see that it runs and run again; what it answered is kept"
            )

    def _check_cap(self) -> None:
        cap = self.chat.max_cost
        if cap is not None and self._cost >= cap:
            raise ChatError(
                f"The cost cap of {cap:g} is reached: {self._answered + self._reused} of "
                f"{self._total} questions are answered for {self._cost:.4g} and kept; raise the "
                "cap and run again to go on"
            )

    def _count(self, reply: Reply) -> None:
        if reply.prompt_tokens is None or reply.completion_tokens is None:
            if self.chat.max_cost is not None:
                raise ChatError(
                    f"{self.chat.base_url} does not tell how many tokens a reply took, so a cost "
                    "cap cannot be kept: leave it out, or use another endpoint"
                )
            with self._lock:
                self._unmetered += 1
            return
        with self._lock:
            self._prompt_tokens += reply.prompt_tokens
            self._completion_tokens += reply.completion_tokens

    def _before_sending(self, request: Any) -> None:
        """Wait for the next slot of the rate limit; the client's own retries come here too."""
        with self._lock:
            self._sent += 1
            slot = max(time.monotonic(), self._next_slot)
            if self.chat.requests_per_minute is not None:
                self._next_slot = slot + 60 / self.chat.requests_per_minute
        self._stop.wait(slot - time.monotonic())

    def _tell(self, more: int) -> None:
        self._done += more
        if self._progress and more:
            self._progress(self._done, self._total)

    def _read(self, text: str) -> Reply:
        """The reply in a response's body. Raises _NoReply unless it is a chat completion."""
        try:
            body = json.loads(text)
            choice = body["choices"][0]
            content = choice["message"]["content"]
            listed = (choice.get("logprobs") or {}).get("content") or []
            tokens = tuple(tuple(_alternatives(token)) for token in listed)
            usage = body.get("usage") or {}
            counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            start = self._clean(text)[:EXCERPT]
            raise _NoReply(f"not a chat completion: {start!r}") from error
        if not isinstance(content, str):
            raise _NoReply(f"the reply holds no text but {type(content).__name__}")
        known = [count if isinstance(count, int) and count >= 0 else None for count in counts]
        return Reply(self._clean(content), tokens, *known)

    def _excerpt(self, error: Any) -> str:
        return self._clean(str(error.message))[:EXCERPT]

    def _clean(self, text: str) -> str:
        """Without the key, which some servers repeat."""
        return text.replace(self._key, "***") if self._key else text

    def _kept(self, info: fs.FileInfo) -> Reply | None:
        if not info.is_file:
            return None
        with self._filesystem.open_input_file(info.path) as file:
            try:
                kept = json.loads(file.read())
            except ValueError:
                return None  # cut short by a kill
        tokens = tuple(tuple((t, p) for t, p in token) for token in kept.pop("tokens"))
        return Reply(tokens=tokens, **kept)

    def _write(self, path: str, reply: Reply) -> None:
        with self._filesystem.open_output_stream(path) as file:
            file.write(json.dumps(vars(reply)).encode())


class _NoReply(Exception):
    """The endpoint answered with something else."""


def _alternatives(token: dict[str, Any]) -> list[tuple[str, float]]:
    """The likeliest tokens at a place; the one that was sampled is among them."""
    found = {str(a["token"]): float(a["logprob"]) for a in token.get("top_logprobs") or []}
    found.setdefault(str(token["token"]), float(token["logprob"]))
    return sorted(found.items(), key=lambda item: -item[1])


def _body(chat: Chat, question: Question) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": chat.model,
        "messages": [
            {"role": "system", "content": question.system},
            {"role": "user", "content": question.user},
        ],
        "temperature": chat.temperature,
        "max_tokens": question.max_tokens,
    }
    if chat.logprobs:
        body |= {"logprobs": True, "top_logprobs": ALTERNATIVES}
    if chat.temperature > 0:
        body["seed"] = question.seed
    return body


def _key(chat: Chat, question: Question) -> str:
    """Hash of the request, and of the seed even where it is not sent."""
    text = json.dumps([_body(chat, question), question.seed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def no_answer(session: ChatSession, replies: Sequence[str | None]) -> str:
    """Why nothing came of a session: its last failure, or the first reply that says nothing."""
    unread = next((reply for reply in replies if reply is not None), None)
    if unread is None:
        return f"every question failed, the last by {session.last_failure}"
    return f"replies cannot be read, such as {unread[:EXCERPT]!r}"


def named_option(text: str, options: str) -> str | None:
    """The one of the digits in ``options`` that stands in the text as a number of its own; None
    unless it is exactly one, however often."""
    found = set(re.findall(r"(?<!\w)\d+(?:[.,]\d+)*(?!\w)", text))
    return found.pop() if len(found) == 1 and found <= set(options) else None


def draw_seed(*parts: object) -> int:
    """A seed below 2³¹ that depends on the parts alone."""
    digest = hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
