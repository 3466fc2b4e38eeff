"""Some pairs of the embedded world, and a scripted server that is asked about them."""

from chat_servers import completion

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.store import Store
from weakteach.models.chat.endpoint import Chat
from weakteach.models.spec import find_model, tokenizer_of
from weakteach.preferences.sources import WorldSource
from weakteach.steps.data import Pairs, read_labels
from weakteach.steps.judging import PromptedLabels

PAIRS = 6


def part_of(pairs=PAIRS):
    return Pairs(WorldSource(pairs, seed=3), (tokenizer_of(find_model("opt-45k")),)).all


def chat_at(server, **fields):
    url = server if isinstance(server, str) else server.url
    fields = {"timeout": 5.0, "retries": 0, "concurrency": 4} | fields
    return Chat(fields.pop("model", "judge"), base_url=url, **fields)


def answered(tmp_path, server, part=None, **fields):
    store, step = Store(tmp_path / "store"), PromptedLabels(chat_at(server, **fields), part or PART)
    return obtain(store, step)["facts"], read_labels(store, step), step


PART = part_of()


def shown(request):
    """The two responses in the order in which the question shows them."""
    text = request.user.split("\n\nReply 1:\n")[1]
    first, rest = text.split("\n\nReply 2:\n")
    return first, rest.split("\n\nWhich reply")[0]


def prefers_longer(request, before):
    first, second = shown(request)
    return completion("1" if len(first) >= len(second) else "2")
