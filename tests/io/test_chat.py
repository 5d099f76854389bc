"""Chat templates against transformers', and against those that mean harm."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import processors

from regrow.core.errors import InputError
from regrow.io.chat import ChatTemplate, PromptEncoder, plain_chat
from regrow.io.tokenizer import Tokenizer, train_byte_level

CHATML = (
    "{%- for message in messages %}\n"
    "    {%- if loop.first and message['role'] != 'system' %}\n"
    "        {{- '<|im_start|>system\\nBe good.<|im_end|>\\n' }}\n"
    "    {%- endif %}\n"
    "    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# What templates of published models use: special tokens, namespaces, loop controls, filters, the
# generation mark, tools and documents that are not there.
RICH = (
    "{{ bos_token }}{% set ns = namespace(n=0, last='') %}\n"
    "{% if tools is none and documents is none and custom_flag is not defined %}plain\n"
    "{% endif %}\n"
    "{% for m in messages %}\n"
    "  {% if m['role'] == 'system' %}{{ m['content'] | trim | tojson }}{% continue %}{% endif %}\n"
    "  {% set ns.n = ns.n + 1 %}\n"
    "  {% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}"
    "{% endgeneration %}\n"
    "  {% else %}[{{ ns.n }}] {{ m.content.strip() | upper }}{% endif %}\n"
    "  {% set ns.last = m.role %}\n"
    "{% endfor %}\n"
    "{{ dict(a=1, b=[ns.last, true]) | tojson(indent=2) }}<{{ messages | length }}>"
)
CONVERSATIONS = [
    [{"role": "user", "content": "Hi <b> & 'you' é😀"}],
    [
        {"role": "system", "content": '  Be "brief".\n'},
        {"role": "user", "content": " a\n\n b "},
        {"role": "assistant", "content": "<|im_start|>x"},
        {"role": "user", "content": "more"},
    ],
]


def make(folder: Path, settings: dict[str, Any], opening: bool = False) -> Path:
    """A tokenizer's folder with special tokens; with ``opening`` its post-processor adds one."""
    content = dict(train_byte_level(iter(["a be good user system " * 3]), 270).files())
    inner = tokenizers.Tokenizer.from_buffer(content["tokenizer.json"])
    inner.add_special_tokens(["<s>", "</s>", "<|im_start|>", "<|im_end|>"])
    if opening:
        inner.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>",
            special_tokens=[(t, inner.token_to_id(t)) for t in ("<s>", "</s>")],
        )
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(inner.to_str())
    full = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": {"content": "<s>", "__type": "AddedToken", "special": True},
        "eos_token": "</s>",
        "clean_up_tokenization_spaces": False,
        **settings,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(full))
    return folder


def encoder(folder: Path) -> PromptEncoder:
    return PromptEncoder(Tokenizer.load(folder), ChatTemplate.load(folder))


def theirs(folder: Path) -> Any:
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("messages", CONVERSATIONS)
@pytest.mark.parametrize("source", [CHATML, RICH])
@pytest.mark.parametrize("place", ["config", "file"])
def test_templates_equal_transformers(
    place: str, source: str, messages: list[dict[str, str]], tmp_path: Path
) -> None:
    folder = make(tmp_path, {"chat_template": source if place == "config" else "no"}, True)
    if place == "file":
        (folder / "chat_template.jinja").write_text(source)
    ours, stock = encoder(folder), theirs(folder)
    assert ours.template is not None
    for more in (True, False):
        expected = stock.apply_chat_template(messages, tokenize=False, add_generation_prompt=more)
        assert ours.template.render(messages, add_generation_prompt=more) == expected
    ids = stock.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ours.encode_chat(messages) == ids
    assert Tokenizer.load(folder).eos_id not in ids or source == RICH
    if source == CHATML:
        assert stock.convert_tokens_to_ids("<|im_start|>") in ids  # as one token


@pytest.mark.parametrize("opening", [False, True])
@pytest.mark.parametrize("add_bos", [None, False, True])
def test_prompts_open_as_in_transformers(
    opening: bool, add_bos: bool | None, tmp_path: Path
) -> None:
    folder = make(tmp_path, {} if add_bos is None else {"add_bos_token": add_bos}, opening)
    ours, stock = encoder(folder), theirs(folder)
    expected = stock("a good user").input_ids
    if expected[-1] == stock.eos_token_id:
        del expected[-1]  # a prompt is to be continued
    assert ours.encode("a good user") == expected
    assert ours.opening == ([stock.bos_token_id] if expected[0] == stock.bos_token_id else [])


def test_named_templates(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    template = ChatTemplate.load(make(tmp_path, {"chat_template": named}))
    assert template is not None
    assert template.render(CONVERSATIONS[0]) == "D"
    with pytest.raises(InputError, match="tool_use, but none named default"):
        ChatTemplate.load(make(tmp_path, {"chat_template": named[:1]}))
    with pytest.raises(InputError, match="must be text"):
        ChatTemplate.load(make(tmp_path, {"chat_template": 3}))


def test_without_a_template(tmp_path: Path) -> None:
    ours = encoder(make(tmp_path, {}))
    assert ours.template is None
    text = plain_chat(CONVERSATIONS[1])
    assert text == (
        '  Be "brief".\n\n\nUser:  a\n\n b \nAssistant: <|im_start|>x\nUser: more\nAssistant:'
    )
    assert ours.encode_chat(CONVERSATIONS[1]) == ours.encode(text)
    assert ours.chat_stops == ("\nUser:",)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% for m in messages %}", "line 1"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[0].nothing.more }}", "nothing"),
        ("{{ ''.__class__.__mro__ }}", "unsafe|__class__"),
        ("{{ messages.append(1) }}", "unsafe|append"),
        ("{% set ns = namespace() %}{% set ns.__class__ = 1 %}", "__class__"),
        ("{% include 'x' %}", "loader"),
        ("{{ ('a' * 9999) * 9999999 }}", "MiB"),
        ("{{ '%9999999999d' % 1 }}", "MiB|large|overflow"),
        ("{% for i in range(99999) %}{{ 'abcdefgh' * 99 }}{% endfor %}", "4,194,304 characters"),
    ],
)
def test_templates_that_fail_or_mean_harm(source: str, message: str, tmp_path: Path) -> None:
    template = ChatTemplate(source, tmp_path / "chat_template.jinja")
    with pytest.raises(
        InputError, match=rf"chat_template.jinja: the chat template fails: .*({message})"
    ):
        template.render(CONVERSATIONS[0])


def test_an_endless_template_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regrow.io.chat._MAX_SECONDS", 1)
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    started = time.monotonic()
    with pytest.raises(InputError, match="more than 1 s"):
        ChatTemplate(loops, tmp_path).render(CONVERSATIONS[0])
    assert time.monotonic() - started < 10
