"""A chat model behind an OpenAI-compatible endpoint, its questions and its replies, as values."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from weakteach.artifacts.errors import UserError
from weakteach.artifacts.identity import EXECUTION

# Alternatives asked for at each token of a reply; all endpoints that give any allow five.
ALTERNATIVES = 5


class ChatError(UserError):
    """The endpoint cannot be asked at all, or its cost cap is reached."""


def _execution(default: Any) -> Any:
    return field(default=default, compare=False, metadata=EXECUTION)


@dataclass(frozen=True)
class Chat:
    """A chat model, by the name under which its endpoint knows it.

    ``logprobs`` asks for log-probabilities; an endpoint may leave them out of its replies, but
    ``logprobs`` must be False for an endpoint that refuses such requests. The fields from
    ``base_url`` on say only how to ask: ``base_url`` ends in ``/v1`` for most servers;
    ``key_variable`` names the environment variable that holds the key, and is empty if the endpoint
    wants none; ``timeout`` is in seconds for one request; ``retries`` is how often a request is
    sent again after a 408, 409, 429, 5xx, timeout or lost connection. Prices are per million
    tokens, in any currency; ``max_cost`` is in that currency, for one step, and may be exceeded by
    requests that are under way when it is reached. Raises ChatError for values that cannot be used.
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
        """What these tokens cost, in the currency of the prices."""
        paid = prompt_tokens * self.input_price + completion_tokens * self.output_price
        return paid / 1_000_000


@dataclass(frozen=True)
class ChatQuestion:
    """One request. Questions that differ in the seed alone are asked separately; the endpoint is
    told the seed when it samples (temperature above 0)."""

    system: str
    user: str
    max_tokens: int
    seed: int = 0


@dataclass(frozen=True)
class Reply:
    """The reply to a question. ``tokens`` holds, for each token of the text, the likeliest
    alternatives with their log-probabilities, and is empty if the endpoint gives none."""

    text: str
    tokens: tuple[tuple[tuple[str, float], ...], ...] = ()
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class NoReply(Exception):
    """The endpoint answered with something other than a chat completion."""


def read_reply(text: str) -> Reply:
    """The reply in a response's body. Raises NoReply unless it is a chat completion."""
    try:
        body = json.loads(text)
        choice = body["choices"][0]
        content = choice["message"]["content"]
        listed = (choice.get("logprobs") or {}).get("content") or []
        tokens = tuple(tuple(_alternatives(token)) for token in listed)
        usage = body.get("usage") or {}
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise NoReply(f"not a chat completion: {text!r}") from error
    if not isinstance(content, str):
        raise NoReply(f"the reply holds no text but {type(content).__name__}")
    known = [count if isinstance(count, int) and count >= 0 else None for count in counts]
    return Reply(content, tokens, *known)


def _alternatives(token: dict[str, Any]) -> list[tuple[str, float]]:
    """The likeliest tokens at a place with their log-probabilities, the likeliest first; the token
    that was sampled is among them."""
    found = {str(a["token"]): float(a["logprob"]) for a in token.get("top_logprobs") or []}
    found.setdefault(str(token["token"]), float(token["logprob"]))
    return sorted(found.items(), key=lambda item: -item[1])


def request_body(chat: Chat, question: ChatQuestion) -> dict[str, Any]:
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


def question_key(chat: Chat, question: ChatQuestion) -> str:
    """Hash of the request and of the seed, even where the seed is not sent."""
    text = json.dumps([request_body(chat, question), question.seed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def named_option(text: str, options: str) -> str | None:
    """The only number in the text, if it is one of the digits in ``options``; it may occur several
    times. None if the text has no number, different ones, or one that is no option."""
    found = set(re.findall(r"(?<!\w)\d+(?:[.,]\d+)*(?!\w)", text))
    return found.pop() if len(found) == 1 and found <= set(options) else None


def draw_seed(*parts: object) -> int:
    """A seed below 2³¹ that depends on the parts alone."""
    digest = hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
