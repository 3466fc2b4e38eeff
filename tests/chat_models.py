"""Chat templates as those of public models, and tiny random models that have them."""

from pathlib import Path

from families import random_model
from transformers import PreTrainedTokenizerBase

from weakteach.models.tiny.pretraining import build_tokenizer

TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% if m.tool_calls %}<call>{{ m.tool_calls | tojson }}</call>{% endif %}<|im_end|>\n"
    "{% endfor %}"
)
OPENS = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
)
TEMPLATES = {
    "plain": "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    + TURNS
    + OPENS,
    "BOS": "{{ bos_token }}" + TURNS + OPENS,
    "no system turn": NO_SYSTEM + "{{ bos_token }}{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]"
    "{% else %} {{ m.content | trim }}{{ eos_token }}{% endif %}{% endfor %}",
    "system left out": "{% for m in messages if m.role != 'system' %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" + OPENS,
    # As those of reasoning models: no thoughts of earlier turns, and one begun for the next.
    "thinking": "{% for m in messages %}{% set said = m.content %}"
    "{% if m.role == 'assistant' and not loop.last and '</think>' in said %}"
    "{% set said = said.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if m.role == 'assistant' and loop.last and m.reasoning_content %}"
    "{% set said = '<think>\n' + m.reasoning_content + '\n</think>\n\n' + said %}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ said }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}",
}
DATED = (
    "\n  {% if strftime_now is defined %}\n"
    "{% set today = strftime_now('%d %b %Y, %A') %}\n{% endif %}"
    "It is the {{ today }} ({{ strftime_now('%Y-%m-%d %-I%%') }}).\n" + TURNS + OPENS
)
MARKS = ["<|im_start|>", "<|im_end|>"]


def chat_tokenizer(template: str | None) -> PreTrainedTokenizerBase:
    """The embedded tokenizer with marks of turns, and thinking tags that are no special tokens."""
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": MARKS})
    tokenizer.add_tokens(["<think>", "</think>"])
    if template is not None:
        tokenizer.chat_template = TEMPLATES[template]
    return tokenizer


def chat_folder(folder: Path, template: str | None, family: str = "llama") -> Path:
    """A model folder whose turns end with <|im_end|>, as its generation config says."""
    tokenizer = chat_tokenizer(template)
    model = random_model(family, vocab_size=len(tokenizer))
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, end]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
