"""Asks a chat model the questions of a step, over several threads; stores each answer at once."""

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from typing import Any

from pyarrow import fs

from weakteach.artifacts.store import Store
from weakteach.models.chat.endpoint import (
    Chat,
    ChatError,
    ChatQuestion,
    NoReply,
    Reply,
    question_key,
    read_reply,
    request_body,
)

# After this many failures in a row the endpoint is taken to be down.
GIVE_UP_AFTER = 20
# The most characters of a text that an error shows.
EXCERPT = 200


class ChatSession:
    """Asks the questions of one step over several threads.

    Each answer is written under ``folder`` of the store as soon as it comes, and questions whose
    answers lie there are not asked again. ``progress`` is called with the number of questions done
    and the number of all. ``last_failure`` says in words why the last question that got no reply
    failed.
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
        # Always give a key: without one, the client would send OPENAI_API_KEY to any endpoint.
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

    def ask(self, questions: Sequence[ChatQuestion]) -> list[Reply | None]:
        """A reply to each question, None where it failed after all retries.

        Raises ChatError when the endpoint refuses the key or the model or is down, or when the cost
        cap is reached or cannot be checked; answers that came until then are kept.
        """
        paths = [f"{self._folder}/{question_key(self.chat, q)}.json" for q in questions]
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
        """What the session has used: HTTP requests (retries included), replies by origin, failures
        by cause, tokens, and the cost of all replies, including those kept by earlier tries."""
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

    def _answer(self, question: ChatQuestion, path: str) -> Reply | None:
        if self._stop.is_set():
            return None
        try:
            self._check_cap()
            return self._request(question, path)
        except ChatError:
            self._stop.set()  # before the caller sees the error, so that no other thread asks on
            raise

    def _request(self, question: ChatQuestion, path: str) -> Reply | None:
        import openai

        try:
            response = self._client.chat.completions.with_raw_response.create(
                **request_body(self.chat, question)
            )
            reply = read_reply(response.http_response.text)
            reply = replace(reply, text=self._clean(reply.text))
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
        except (openai.APIError, NoReply) as error:
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

    def _excerpt(self, error: Any) -> str:
        return self._clean(str(error.message))[:EXCERPT]

    def _clean(self, text: str) -> str:
        """The text with the key masked, since some servers repeat it, and with question marks for
        lone surrogates, which JSON can spell and no table or terminal can hold."""
        writable = text.encode(errors="replace").decode()
        return writable.replace(self._key, "***") if self._key else writable

    def _kept(self, info: fs.FileInfo) -> Reply | None:
        if not info.is_file:
            return None
        with self._filesystem.open_input_file(info.path) as file:
            try:
                kept = json.loads(file.read())
            except ValueError:
                return None  # cut short by a kill
        tokens = tuple(tuple((t, p) for t, p in token) for token in kept.pop("tokens"))
        return Reply(self._clean(kept.pop("text")), tokens, **kept)

    def _write(self, path: str, reply: Reply) -> None:
        with self._filesystem.open_output_stream(path) as file:
            file.write(json.dumps(vars(reply)).encode())


def no_answer(session: ChatSession, replies: Sequence[str | None]) -> str:
    """Why a session gave no usable answer: its last failure if there is no reply at all, else that
    the replies cannot be read, with the first one."""
    unread = next((reply for reply in replies if reply is not None), None)
    if unread is None:
        return f"every question failed, the last by {session.last_failure}"
    return f"replies cannot be read, such as {unread[:EXCERPT]!r}"
