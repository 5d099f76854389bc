"""``generate`` and ``chat`` as a user meets them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
import torch

from regrow.cli.main import main
from regrow.core.config import describe_fields
from regrow.io.jsonl import write_jsonl
from regrow.io.tokenizer import train_byte_level
from regrow.model.config import MambaConfig
from regrow.model.folder import load, save
from regrow.model.generate import generate
from regrow.model.generate_config import ChatConfig, GenerateConfig
from regrow.model.writer import load_encoder
from tests.cli.conftest import Command
from tests.model.makers import ours

Run = Callable[..., tuple[int, str, str]]
TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hybrid in a Hugging Face folder."""
    folder = tmp_path_factory.mktemp("models") / "hybrid"
    made = ours(
        vocab_size=300,
        pattern="M-*-",
        layers=4,
        rotary_fraction=0.0,
        activation="relu2",
        max_positions=100_000,
        mamba=MambaConfig(state=8, head_dim=8, groups=1),
    )
    tokenizer = train_byte_level(iter([f"the {i} é 😀 " + "abc " * i for i in range(30)]), 300)
    save(made, folder, tokenizer)
    return folder


@pytest.fixture(scope="module")
def short(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformer of 32 positions, trained on 16, in a run folder."""
    run = tmp_path_factory.mktemp("models") / "run"
    made = ours(vocab_size=300, max_positions=32)
    save(made, run / "export", load_encoder(model).tokenizer)
    (run / "config.yaml").write_text("data: {sequence: 16}\n")
    return run


@pytest.fixture
def inside(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``regrow`` in this process: its exit code, stdout and stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return run


def greedy(folder: Path, prompt: str, new_tokens: int) -> str:
    """What transformers' recipe would write: the most likely tokens up to the end token."""
    encoder = load_encoder(folder)
    ids = encoder.encode(prompt)
    tokens = torch.tensor([ids])
    whole = generate(load(folder).eval(), tokens, new_tokens, eos_id=0)[0, len(ids) :].tolist()
    return encoder.tokenizer.decode(whole)


def test_one_prompt_streams_its_continuation(regrow: Command, model: Path) -> None:
    done = regrow("generate", str(model), "the abc", "temperature=0", "max_new_tokens=20")
    assert done.returncode == 0, done.stderr
    assert done.stdout == greedy(model, "the abc", 20) + "\n"
    assert re.fullmatch(r"20 tokens in \d.* s \(.* tokens/s\), ended by .*\n", done.stderr)


def test_several_prompts_and_json(inside: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("the abc\n\né 😀\n", encoding="utf-8")
    write_jsonl(tmp_path / "p.jsonl", [{"prompt": "the abc"}, {"prompt": "é 😀", "more": 1}])
    words = ("temperature=0", "max_new_tokens=8")
    code, out, err = inside("generate", model, "the abc", "é 😀", *words)
    assert code == 0
    texts = [greedy(model, prompt, 8) for prompt in ("the abc", "é 😀")]
    assert out == f"--- 1: the abc\n{texts[0]}\n--- 2: é 😀\n{texts[1]}\n"
    for name in ("p.txt", "p.jsonl"):
        code, out, err = inside("generate", model, f"prompts={tmp_path / name}", *words, "--json")
        assert (code, err) == (0, "")
        result = json.loads(out)
        assert [c["prompt"] for c in result["completions"]] == ["the abc", "é 😀"]
        assert [c["text"] for c in result["completions"]] == texts
        assert result["new_tokens"] == sum(c["new_tokens"] for c in result["completions"])
        assert {c["reason"] for c in result["completions"]} <= {"length", "eos"}
        assert result["settings"]["max_new_tokens"] == 8


def test_settings_reach_the_text(inside: Run, model: Path) -> None:
    whole = greedy(model, "the abc", 40)
    stop = whole[10:13]
    words = ("temperature=0", "max_new_tokens=40", f"stop={json.dumps([stop])}")
    _, out, err = inside("generate", model, "the abc", *words)
    assert out == whole[: whole.index(stop)] + "\n"
    assert "ended by a stop string" in err
    drawn = [
        inside("generate", model, "the abc", "temperature=2", *more)[1]
        for more in ((), (), ("seed=1",), ("top_k=1",), ("top_p=1e-9",))
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[3] == drawn[4] == greedy(model, "the abc", 64) + "\n"


def test_a_prompt_may_look_like_a_setting(inside: Run, model: Path) -> None:
    code, _, err = inside("generate", model, "x=1")
    assert code == 2
    assert "a prompt that reads like key=value goes after --" in err
    code, out, _ = inside("generate", model, "temperature=0", "max_new_tokens=5", "--", "x=1")
    assert (code, out) == (0, greedy(model, "x=1", 5) + "\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("generate",), "model: required"),
        (("generate", "MODEL"), "no prompt"),
        (("generate", "MODEL", "a", ""), "prompt 2: empty"),
        (("generate", "MODEL", "a", "temprature=1"), "temprature: unknown key, did you mean temp"),
        (("generate", "MODEL", "a", "top_p=1.5", "top_k=0"), "2 problems"),
        (("generate", "MODEL", "a", "stop=[a,'']"), "empty string would end every text"),
        (("generate", "MODEL", "prompts=nowhere.txt"), "nowhere.txt: no such file"),
        (("generate", "nowhere", "a"), "nowhere: no such path"),
        (("generate", "SHORT", "a", "device=cuda"), "torch finds no GPU"),
        (("generate", "BARE", "a"), "has no tokenizer.json"),
        (
            ("generate", "SHORT", "a" * 33),
            "prompt 1 has 33 tokens; the model's max_positions is 32",
        ),
        (("generate", "NARROW", "abc"), "the model's vocabulary is 200"),
        (("chat",), "model: required"),
        (("chat", "MODEL", "Hello"), "chat takes MODEL, but got MODEL Hello"),
        (("chat", "BARE"), "has no tokenizer.json"),
        (("chat", "SHORT", "system=" + "x" * 40), "max_positions is 32"),
        (("chat", "FAILING"), "the chat template fails: no system"),
    ],
)
def test_mistakes_exit_with_2(
    words: tuple[str, ...],
    message: str,
    inside: Run,
    model: Path,
    short: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("regrow.model.folder.load", lambda _: pytest.fail("the model was loaded"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if {"BARE", "FAILING", "NARROW"} & set(words):
        folder = tmp_path / words[1]
        size = 200 if words[1] == "NARROW" else 300
        save(ours(vocab_size=size), folder, load_encoder(model).tokenizer)
        (folder / "chat_template.jinja").write_text("{{ raise_exception('no system') }}")
        if words[1] == "BARE":
            (folder / "tokenizer.json").unlink()
    places = {"MODEL": model, "SHORT": short, "BARE": tmp_path / "BARE"}
    places |= {name: tmp_path / name for name in ("FAILING", "NARROW")}
    code, out, err = inside(*(places.get(word, word) for word in words))
    assert (code, out) == (2, "")
    assert message in err.replace(str(model), "MODEL")
    assert "Traceback" not in err


def test_broken_lines_of_prompts_are_all_named(inside: Run, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "a"}\n{"text": "b"}\n{\n{"prompt": 3}\n')
    code, _, err = inside("generate", model, f"prompts={path}")
    assert code == 2
    assert [int(n) for n in re.findall(r"p\.jsonl:(\d)", err)] == [2, 3, 4]


def test_lengths_beyond_training_are_told(inside: Run, short: Path) -> None:
    _, _, err = inside("generate", short, "aa", "max_new_tokens=16")
    assert err.splitlines()[0] == (
        "warning: prompt and new tokens may reach 18 tokens, but the model was trained on "
        "sequences of 16; expect worse text beyond that"
    )
    _, _, err = inside("generate", short, "aa", "max_new_tokens=14")
    assert "warning" not in err


@pytest.mark.parametrize(("verb", "config"), [("generate", GenerateConfig), ("chat", ChatConfig)])
def test_help_shows_every_setting(
    verb: str, config: type[GenerateConfig] | type[ChatConfig], inside: Run
) -> None:
    code, out, _ = inside(verb, "--help")
    assert code == 0
    assert f"regrow {verb} runs/base" in out.split("Example:")[1]
    rows = describe_fields(config)
    assert all(text for *_, text in rows)
    for key, _, default, _ in rows:
        entry = re.search(rf"^  {key} .*?(?=^  \w|\Z)", out, flags=re.DOTALL | re.MULTILINE)
        assert entry, key
        assert f"; {default}]" in " ".join(entry.group().split())


def test_chat_in_the_plain_form(regrow: Command, model: Path, tmp_path: Path) -> None:
    words = ["chat", str(model), "temperature=0", "max_new_tokens=12", "system=the abc"]
    done = subprocess.run(
        [sys.executable, "-m", "regrow", *words, "--json"],
        input="the é\n\nabc abc\n",
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert "no chat template; turns are written as User: and Assistant:" in done.stderr
    result = json.loads(done.stdout)
    system, first, one, second, two = result["messages"]
    assert (system["content"], first["content"], second["content"]) == (
        "the abc", "the é", "abc abc"
    )  # fmt: skip
    prompt = "the abc\n\nUser: the é\nAssistant:"
    assert one["content"] == greedy(model, prompt, 12).strip()
    prompt += f" {one['content']}\nUser: abc abc\nAssistant:"
    assert two["content"] == greedy(model, prompt, 12).strip()
    assert [answer["reason"] for answer in result["answers"]] == ["length", "length"]


def test_chat_with_a_template_forgets_what_no_longer_fits(
    inside: Run, short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    save(load(short / "export"), folder, load_encoder(short / "export").tokenizer)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    lines = iter(["the", "x" * 60, "é", "abc"])
    monkeypatch.setattr("regrow.cli.chat._ask", lambda: next(lines, None))
    code, out, err = inside("chat", folder, "temperature=0", "max_new_tokens=4", "--json")
    assert code == 0
    result = json.loads(out)
    assert result["chat_template"].endswith("chat_template.jinja")
    assert "not sent" in err
    assert "the oldest 2 messages no longer fit" in err
    assert [m["content"] for m in result["messages"] if m["role"] == "user"] == ["abc"]
    assert result["messages"][-1]["content"] == greedy(folder, "[user]abc\n[assistant]", 4)


def started(*words: str) -> subprocess.Popen[bytes]:
    """A ``regrow`` that runs on, with pipes to it."""
    return subprocess.Popen(
        [sys.executable, "-m", "regrow", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell's background job has Ctrl-C ignored, and so would the command.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(text: bytes, pipe: IO[bytes] | None) -> None:
    assert pipe is not None
    for line in iter(pipe.readline, b""):
        if text in line:
            return
    pytest.fail(f"{text!r} never came")


def test_ctrl_c_ends_an_answer_then_the_chat(model: Path) -> None:
    words = ("chat", str(model), "max_new_tokens=90000", "temperature=5", "--json")
    with started(*words) as chat:
        assert chat.stdin is not None
        assert chat.stderr is not None
        wait_for(b"Ctrl-C ends an answer", chat.stderr)
        chat.stdin.write(b"the\n")
        chat.stdin.flush()
        assert chat.stderr.read(3)  # the answer has begun
        chat.send_signal(signal.SIGINT)
        wait_for(b"(stopped)", chat.stderr)
        chat.send_signal(signal.SIGINT)
        out, _ = chat.communicate(timeout=60)
    assert chat.returncode == 130
    result = json.loads(out)
    assert [answer["reason"] for answer in result["answers"]] == ["interrupted"]
    assert result["messages"][-1]["role"] == "assistant"
    assert result["messages"][-1]["content"]


def test_ctrl_c_ends_generate_with_130(model: Path) -> None:
    with started("generate", str(model), "the", "max_new_tokens=90000", "temperature=5") as made:
        assert made.stdout is not None
        assert made.stdout.read(3)
        made.send_signal(signal.SIGINT)
        _, err = made.communicate(timeout=60)
    assert made.returncode == 130
    assert err.decode() == "error: interrupted\n"


def test_a_reader_may_go_away(model: Path) -> None:
    with started("generate", str(model), "the", "max_new_tokens=90000", "temperature=5") as made:
        assert made.stdout is not None
        assert made.stderr is not None
        assert made.stdout.read(3)
        made.stdout.close()
        assert made.wait(60) == 0
        assert made.stderr.read() == b""
