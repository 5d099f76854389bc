"""``generate``: text from a model; nothing is written. What ``chat`` shares with it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, TypeVar

import typer

from regrow.cli.describe import command_class
from regrow.cli.show import print_json, print_line, say
from regrow.core.config import Config, is_override, load_config
from regrow.core.errors import ConfigError, InputError, Interrupted
from regrow.core.progress import progress

if TYPE_CHECKING:
    from regrow.io.chat import PromptEncoder
    from regrow.model.config import ModelConfig
    from regrow.model.generate_config import GenerateConfig, SamplingConfig
    from regrow.model.writer import Writer

C = TypeVar("C", bound=Config)

GENERATE_EXAMPLE = 'regrow generate runs/base "def main(" max_new_tokens=64 temperature=0.8'
TITLE = "Settings (as key=value, after the bare arguments; after -- nothing is a setting):"
# A model can write what a terminal obeys.
_CONTROL = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)], "\ufffd")


def _generate_config() -> type[GenerateConfig]:
    from regrow.model.generate_config import GenerateConfig

    return GenerateConfig


def register(app: typer.Typer) -> None:
    """Add ``generate`` to ``app``."""
    app.command("generate", cls=command_class(_generate_config, GENERATE_EXAMPLE, TITLE))(generate)


def generate(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL PROMPT ... [key=value ...]", show_default=False),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the result object, and nothing else.")
    ] = False,
) -> None:
    """Continue prompts with a model's own text."""
    bare, overrides = split_words(ctx, words)
    config = text_settings(
        _generate_config(), {"model": bare[:1], "prompt": bare[1:]}, overrides, "a prompt"
    )
    with interruptible():
        result = _generate(config, quiet=json)
    if json:
        print_json(result)


def split_words(ctx: typer.Context, words: list[str] | None) -> tuple[list[str], list[str]]:
    """Bare arguments and settings of a command line."""
    overrides = [word for word in words or () if is_override(word)]
    bare = [word for word in words or () if not is_override(word)]
    return bare + list((ctx.obj or {}).get("literal", ())), overrides


def text_settings(cls: type[C], bare: dict[str, list[str]], overrides: list[str], what: str) -> C:
    """The settings of a command line; ``what`` is the bare argument that may look like one.

    Raises:
        ConfigError: with every problem.
    """
    base: dict[str, Any] = {key: value for key, value in bare.items() if value}
    if "model" in base:
        base["model"] = base["model"][0]
    try:
        return load_config(cls, overrides=overrides, base=base)
    except ConfigError as error:
        problems = list(error.problems)
        if any("unknown key" in problem for problem in problems):
            problems.append(f"({what} that reads like key=value goes after --)")
        raise ConfigError(error.message, problems) from None


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C exits with 130, a reader that goes away with 0."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("interrupted") from None
    except BrokenPipeError:
        # Whoever read the text has enough of it; the interpreter's last flush must not fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from None


def show(text: str, stream: TextIO) -> None:
    """Text of a model, at once; a terminal gets no control characters from it."""
    stream.write(text.translate(_CONTROL) if stream.isatty() else text)
    stream.flush()


def open_model(config: SamplingConfig) -> tuple[Path, PromptEncoder, ModelConfig, int | None]:
    """Folder, tokenizer, shape and trained length of a model, before its weights are read."""
    from regrow.io.runs import resolve_model
    from regrow.model.folder import load_config as load_shape
    from regrow.model.generate_config import trained_length
    from regrow.model.writer import load_encoder

    folder = resolve_model(config.model)
    encoder = load_encoder(folder)
    return folder, encoder, load_shape(folder), trained_length(folder)


def load_writer(config: SamplingConfig, folder: Path, encoder: PromptEncoder) -> Writer:
    """The model with its weights, where it is to run."""
    import torch

    from regrow.model.folder import load
    from regrow.model.writer import Writer, extra_end_ids
    from regrow.train.device import resolve_device, resolve_threads

    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda, but torch finds no GPU here; use auto or cpu")
    torch.set_num_threads(resolve_threads(config.threads))
    ends = extra_end_ids(folder)
    return Writer(load(folder).to(resolve_device(config.device)), encoder, ends)


def _generate(config: GenerateConfig, quiet: bool) -> dict[str, Any]:
    prompts = _prompts(config)

    from regrow.model.generate_config import check_ids, check_lengths

    folder, encoder, shape, trained = open_model(config)
    ids = [encoder.encode(prompt) for prompt in prompts]
    check_ids(shape, ids)
    warning = check_lengths(shape, [len(row) for row in ids], config.max_new_tokens, trained)
    if warning:
        say(warning)
    writer = load_writer(config, folder, encoder)
    single = len(prompts) == 1 and not quiet
    started = time.monotonic()
    with progress("generate", len(prompts), "prompt", quiet or single) as bar:
        made = writer.complete(
            ids,
            config.max_new_tokens,
            config.temperature,
            config.top_k,
            config.top_p,
            config.stop,
            config.seed,
            on_text=(lambda _, text: show(text, sys.stdout)) if single else None,
            on_end=lambda _, __: bar.advance(1),
            batch_tokens=config.batch_tokens,
        )
    seconds = time.monotonic() - started
    if single:
        print_line()
    elif not quiet:
        for place, (prompt, completion) in enumerate(zip(prompts, made, strict=True), start=1):
            show(f"--- {place}: {prompt}\n{completion.text}\n", sys.stdout)
    tokens = sum(completion.new_tokens for completion in made)
    if not quiet:
        ended = f", ended by {_ENDS[made[0].reason]}" if single else ""
        say(f"{tokens:,} tokens in {seconds:.2f} s ({tokens / seconds:,.0f} tokens/s){ended}")
    return {
        "verb": "generate",
        "model": str(folder),
        "settings": config.as_json(),
        "completions": [
            {"prompt": prompt, **asdict(completion)}
            for prompt, completion in zip(prompts, made, strict=True)
        ],
        "new_tokens": tokens,
        "seconds": round(seconds, 3),
        "tokens_per_second": round(tokens / seconds, 1),
    }


_ENDS = {"stop": "a stop string", "eos": "the model", "length": "max_new_tokens"}


def _prompts(config: GenerateConfig) -> list[str]:
    """The prompts of the command line and of the file.

    Raises:
        ConfigError: there is none.
        InputError: an empty one, or a file that cannot be read, with every bad line.
    """
    prompts = [*config.prompt, *(_read_prompts(config.prompts) if config.prompts else ())]
    if not prompts:
        raise ConfigError(f"no prompt: {GENERATE_EXAMPLE} (or prompts=FILE)")
    empty = [f"prompt {place}" for place, text in enumerate(prompts, start=1) if not text]
    if empty:
        raise InputError(f"{', '.join(empty)}: empty; give at least one character")
    return prompts


def _read_prompts(path: Path) -> list[str]:
    from regrow.io.jsonl import read_jsonl

    if not path.is_file():
        raise InputError(f"{path}: no such file; prompts takes a .txt or .jsonl file")
    if path.suffixes[-1:] != [".jsonl"] and path.suffixes[-2:] != [".jsonl", ".gz"]:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except ValueError as error:
            raise InputError(f"{path}: not UTF-8 text ({error})") from None
        found = [line for line in lines if line.strip()]
    else:
        found, problems = [], []
        for line in read_jsonl(path):
            text = line.value.get("prompt") if line.value is not None else None
            if isinstance(text, str):
                found.append(text)
            else:
                wrong = line.error or 'no text under "prompt"'
                problems.append(f"{path}:{line.number}: {wrong}")
        if problems:
            raise InputError("cannot read the prompts", problems)
    if not found:
        raise InputError(f"{path}: holds no prompt")
    return found
