"""Broken and hostile model folders, made from good ones; run as a program it tries to load them.

Case ``n`` is the same folder every time: its family, what is done to it and every random choice
come from ``n``. The program prints one JSON object a case.
"""

from __future__ import annotations

import json
import math
import os
import random
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from regrow.io import hf

Folder = dict[str, bytes]
Change = Callable[[Path, random.Random], None]

#: A file beside the folder that an attack may point at; nothing may read, change or remove it.
CANARY = "canary.safetensors"

_DEEP = object()
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 3, 10**6, 2**31, 10**12, 10**400, -(10**30)),
    *(0.0, -0.5, 0.5, 1e-320, 1e308, math.inf, -math.inf, math.nan),
    "",
    "64",
    "silu",
    "../../etc/passwd",
    "a" * 100_000,
    "\u001b[2J\u0000",
    [],
    [1],
    [[]],
    [None, {}],
    ["x"] * 50_000,
    list(range(50_000)),
    {},
    {"a": {"b": 1}},
    {"__float__": "Infinity"},
    {"__float__": "NaN"},
    {"rope_type": "default", "rope_theta": -1},
    {"rope_type": "linear", "factor": "big"},
    {"rope_type": ["llama3"], "factor": 2.0},
    {"rope_type": "llama3", "factor": math.inf, "low_freq_factor": 4, "high_freq_factor": 1},
    _DEEP,
]


def _dump(value: Any) -> str:
    """JSON in Python's dialect (NaN, Infinity), with a deep nest where ``_DEEP`` stands."""
    marked = {k: ("<deep>" if v is _DEEP else v) for k, v in value.items()}
    return json.dumps(marked).replace('"<deep>"', "[" * 60_000 + "]" * 60_000)


def _config(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / hf.CONFIG).read_text())
    return value


def _shard(folder: Path, draw: random.Random) -> Path:
    return draw.choice(sorted(folder.glob("*.safetensors")))


def _flip(data: bytes, low: int, high: int, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 8])):
        place = draw.randrange(low, max(low + 1, min(high, len(changed))))
        changed[place] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _header(data: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _assemble(header: Any, payload: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + payload


def flip_header(folder: Path, draw: random.Random) -> None:
    path = _shard(folder, draw)
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    path.write_bytes(_flip(data, 8, 8 + length, draw))


def flip_length(folder: Path, draw: random.Random) -> None:
    path = _shard(folder, draw)
    path.write_bytes(_flip(path.read_bytes(), 0, 8, draw))


def flip_anywhere(folder: Path, draw: random.Random) -> None:
    path = _shard(folder, draw)
    path.write_bytes(_flip(path.read_bytes(), 0, 1 << 40, draw))


def truncate(folder: Path, draw: random.Random) -> None:
    path = _shard(folder, draw)
    data = path.read_bytes()
    path.write_bytes(data[: draw.choice([0, 1, 7, 8, 9, len(data) - 1, draw.randrange(len(data))])])


def append(folder: Path, draw: random.Random) -> None:
    path = _shard(folder, draw)
    path.write_bytes(path.read_bytes() + draw.randbytes(draw.randrange(1, 5000)))


def sparse_giant(folder: Path, draw: random.Random) -> None:
    path = _shard(folder, draw)
    if draw.random() < 0.5:
        path.write_bytes(struct.pack("<Q", draw.choice([2**63, 2**40, 99_000_000])))
    os.truncate(path, draw.choice([1 << 30, 1 << 34]))


def edit_header(folder: Path, draw: random.Random) -> None:
    path = _shard(folder, draw)
    header, payload = _header(path.read_bytes())
    names = [name for name in header if name != "__metadata__"]
    name = draw.choice(names)
    entry = header[name]
    begin, end = entry["data_offsets"]
    change: dict[str, Any] = draw.choice(
        [
            {"shape": [*entry["shape"], 1]},
            {"shape": entry["shape"][::-1]},
            {"shape": [-1]},
            {"shape": [2**62, 4]},
            {"shape": []},
            {"shape": [0]},
            {"shape": "wide"},
            {"shape": [1.5]},
            {"dtype": "I32"},
            {"dtype": "F64"},
            {"dtype": "F8_E4M3"},
            {"dtype": "nothing\u001b[31m"},
            {"dtype": 7},
            {"data_offsets": [begin, end + 4]},
            {"data_offsets": [end, begin]},
            {"data_offsets": [0, end - begin]},
            {"data_offsets": [-4, 4]},
            {"data_offsets": [2**63, 2**64]},
            {"data_offsets": []},
        ]
    )
    entry.update(change)
    path.write_bytes(_assemble(header, payload))


def rename_tensor(folder: Path, draw: random.Random) -> None:
    path = _shard(folder, draw)
    header, payload = _header(path.read_bytes())
    name = draw.choice([name for name in header if name != "__metadata__"])
    new = draw.choice(
        ["x", "", name.upper(), f"{name}\u001b[2J", "a" * 5000, f"model.{name}", "../" + name]
    )
    header[new] = header.pop(name)
    path.write_bytes(_assemble(header, payload))


def odd_header(folder: Path, draw: random.Random) -> None:
    path = _shard(folder, draw)
    header, payload = _header(path.read_bytes())
    text: Any = draw.choice(
        [
            [],
            "text",
            {},
            {"__metadata__": {"format": 3}},
            {"__metadata__": {"format": "x" * 10**6}, **_without_metadata(header)},
            b"{" * 100_000,
            b"[" * 100_000,
            b"\xff\xfe",
            b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "a": 1}',
            {
                f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
                for i in range(20_000)
            },
        ]
    )
    path.write_bytes(_assemble(text, payload))


def _without_metadata(header: dict[str, Any]) -> dict[str, Any]:
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


def remove_key(folder: Path, draw: random.Random) -> None:
    config = _config(folder)
    for _ in range(draw.choice([1, 1, 3])):
        config.pop(draw.choice(sorted(config)))
    (folder / hf.CONFIG).write_text(_dump(config))


def set_key(folder: Path, draw: random.Random) -> None:
    config = _config(folder)
    config[draw.choice(sorted(config))] = draw.choice(VALUES)
    (folder / hf.CONFIG).write_text(_dump(config))


def set_size(folder: Path, draw: random.Random) -> None:
    config = _config(folder)
    sizes = [k for k, v in config.items() if isinstance(v, int | float) and not isinstance(v, bool)]
    key = draw.choice(sorted(sizes))
    value = config[key]
    config[key] = draw.choice(
        [-value, value + 1, value * 2, value * 10**6, -1, 0, 2**63, value / 3, str(value), [value]]
    )
    (folder / hf.CONFIG).write_text(_dump(config))


def add_key(folder: Path, draw: random.Random) -> None:
    config = _config(folder)
    extra: dict[str, Any] = draw.choice(
        [
            {"auto_map": {"AutoModelForCausalLM": "evil.Model"}},
            {"trust_remote_code": True},
            {"quantization_config": {"quant_method": "gptq"}},
            {"custom_pipelines": {"x": {"impl": "evil.py"}}},
            {"layers_block_type": ["linear_attention", {}]},
            {"hybrid_override_pattern": "M*E" * 2000},
            {"hybrid_override_pattern": "M" * 100_000},
            {"layer_types": [["sliding_attention"]]},
            {"layer_types": ["sliding_attention"] * 100_000},
            {"use_sliding_window": True, "sliding_window": 10**30, "max_window_layers": -5},
            {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
            {"rope_scaling": {"type": "linear", "factor": math.nan}},
            {"time_step_limit": [math.nan, math.nan]},
            {"time_step_limit": "0, inf"},
            {"mamba_n_groups": 10**9},
            {"mamba_dt_min": [1]},
            {"eos_token_id": ["x"] * 200_000},
            {"eos_token_id": list(range(400_000))},
            {"_name_or_path": "../../../etc/passwd", "architectures": [{}]},
            {"text_config": {"hidden_size": 8}},
            {"model_type": draw.choice(["mistral", "qwen2", "qwen3", "nemotron", "mamba2", [], 3])},
            {"model_type": "x" * 10**6},
        ]
    )
    (folder / hf.CONFIG).write_text(_dump({**config, **extra}))


def flip_config(folder: Path, draw: random.Random) -> None:
    path = folder / hf.CONFIG
    path.write_bytes(_flip(path.read_bytes(), 0, 1 << 40, draw))


def odd_config(folder: Path, draw: random.Random) -> None:
    path = folder / hf.CONFIG
    good = path.read_bytes()
    path.write_bytes(
        draw.choice(
            [
                b"",
                b"null",
                b"[]",
                b"3",
                b"{",
                b"\xef\xbb\xbf" + good,
                good.decode().encode("utf-16"),
                good + b"}",
                good[: draw.randrange(len(good))],
                b"[" * 200_000,
                b'{"a":' * 100_000,
                b'{"a": ' + b"9" * 100_000 + b"}",
                good.rstrip(b"}\n \t") + b', "pad": "' + b"x" * (5 << 20) + b'"}',
                b"\x00" * 4096,
                good.replace(b": ", b": \x00", 1),
                b'{"model_type": "llama", "model_type": "mamba2"}',
                b'{"model_type": "\\ud800"}',
            ]
        )
    )


def attack_index(folder: Path, draw: random.Random) -> None:
    path = folder / hf.INDEX
    table: dict[str, Any] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        header, _ = _header(shard.read_bytes())
        table.update(dict.fromkeys(_without_metadata(header), shard.name))
    name = draw.choice(sorted(table))
    real = str(table[name])
    target: Any = draw.choice(
        [
            f"../{CANARY}",
            str(folder.parent / CANARY),
            "/dev/zero",
            "..",
            ".",
            "",
            "./" + real,
            "sub/../" + real,
            "a" * 300 + ".safetensors",
            "a" * 100_000 + ".safetensors",
            "\ud800.safetensors",
            "a\u0000.safetensors",
            "\u001b[2J.safetensors",
            "..\\" + CANARY,
            "C:\\x.safetensors",
            "https://example.org/x.safetensors",
            "config.json",
            "pytorch_model.bin",
            "absent.safetensors",
            7,
            None,
            ["x"],
            {},
        ]
    )
    table[name] = target
    whole: Any = draw.choice(
        [
            {"weight_map": table},
            {"weight_map": table},
            {"weight_map": table},
            {"weight_map": []},
            {"weight_map": "x"},
            {"weight_map": {}},
            {"weight_map": {"": ""}},
            {"weight_map": {f"t{i}": f"{i}.safetensors" for i in range(100_000)}},
            {"weight_map": dict.fromkeys(map(str, range(200_000)), real)},
            {},
            [],
            3,
        ]
    )
    path.write_text(json.dumps(whole))


def _replaceable(folder: Path, draw: random.Random) -> Path:
    path = draw.choice([*sorted(folder.glob("*.safetensors*")), folder / hf.CONFIG])
    path.unlink()
    return path


def link(folder: Path, draw: random.Random) -> None:
    path = _replaceable(folder, draw)
    target = draw.choice(
        [
            f"../{CANARY}",
            folder.parent / CANARY,
            "/dev/zero",
            "/dev/stdin",
            "/proc/self/mem",
            path.name,
            "..",
            ".",
            "absent",
            "/etc/passwd",
        ]
    )
    path.symlink_to(target)


def no_file(folder: Path, draw: random.Random) -> None:
    path = _replaceable(folder, draw)
    kind = draw.choice(["pipe", "folder", "socket", "nothing"])
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(path.parent)  # the name of a socket must be short
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(path.name)
        finally:
            os.chdir(here)


class _Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.target),))


def pickled(folder: Path, draw: random.Random) -> None:
    import pickle

    bomb = pickle.dumps(_Bomb(folder.parent / "exploded"))
    shards = sorted(folder.glob("model*.safetensors"))
    way = draw.randrange(4)
    if way == 0:
        shards[0].write_bytes(bomb)
        return
    name = draw.choice(["pytorch_model.bin", "model.pt", "model.ckpt", "weights.pkl", "model.npy"])
    (folder / name).write_bytes(bomb)
    if way == 1:
        for path in folder.glob("model*"):
            if path.suffix != ".npy":
                path.unlink()
    elif way == 2:
        (folder / hf.INDEX).write_text(json.dumps({"weight_map": {"a": name}}))


def swap_tensors(folder: Path, draw: random.Random) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    path = _shard(folder, draw)
    state = load_file(path)
    name = draw.choice(sorted(state))
    way = draw.randrange(7)
    if way == 0:
        del state[name]
    elif way == 1:
        state["spare"] = torch.zeros(3)
    elif way == 2:
        state[name] = state[name].to(draw.choice([torch.float16, torch.int64, torch.bool]))
    elif way == 3:
        state[name] = torch.full_like(state[name], draw.choice([math.nan, math.inf, -math.inf]))
    elif way == 4:
        state[name] = state[name].reshape(-1)[:-1].clone()
    elif way == 5:
        state[name] = state[name][None].clone()
    else:
        state[name + ".rotary_emb.inv_freq"] = torch.zeros(1 << 20)
    if state:
        save_file(state, path, {"format": "pt"})


CHANGES: dict[Change, int] = {
    flip_header: 30,
    flip_length: 6,
    flip_anywhere: 12,
    truncate: 12,
    append: 6,
    sparse_giant: 6,
    edit_header: 24,
    rename_tensor: 8,
    odd_header: 12,
    remove_key: 24,
    set_key: 44,
    set_size: 28,
    add_key: 24,
    flip_config: 18,
    odd_config: 16,
    attack_index: 24,
    link: 16,
    no_file: 12,
    pickled: 8,
    swap_tensors: 16,
}
"""What is done to a folder, and how often in 300 and some cases."""


def spoil(number: int, good: dict[str, Folder], place: Path) -> tuple[Path, str]:
    """Write case ``number`` into ``place``; returns the folder and what was done to it."""
    draw = random.Random(number)
    source = draw.choice(sorted(good))
    change = draw.choices(list(CHANGES), list(CHANGES.values()))[0]
    place.mkdir(parents=True)
    (place / CANARY).write_bytes(next(iter(good[source].values())))
    folder = place / "model"
    folder.mkdir()
    for name, content in good[source].items():
        (folder / name).write_bytes(content)
    change(folder, draw)
    return folder, f"{source} {change.__name__}"


def snapshot(place: Path) -> list[tuple[Any, ...]]:
    """Everything under a folder: names, kinds, sizes, times of change, content of plain files."""
    found: list[tuple[Any, ...]] = []
    for path in sorted(place.rglob("*")):
        status = path.lstat()
        plain = path.is_file() and not path.is_symlink() and status.st_size < 1 << 24
        content = hash(path.read_bytes()) if plain else None
        found.append((str(path), status.st_mode, status.st_size, status.st_mtime_ns, content))
    return found


def _compare(folder: Path, model: Any) -> str:
    """A loaded model against its files, and against the stock class where that loads them too."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    from regrow.model.adapters import ADAPTERS

    adapter = ADAPTERS.get(model.config.layout)
    stored: dict[str, torch.Tensor] = {}
    for shard in folder.glob("*.safetensors"):
        for name, tensor in load_file(shard).items():
            for old, new in adapter.aliases:
                if name.startswith(old):
                    name = new + name.removeprefix(old)
            stored[name] = tensor
    state = model.state_dict()
    for ours, theirs in adapter.names(model.config):
        kept = stored[theirs].to(state[ours].dtype)
        if not torch.equal(kept.view(torch.uint8), state[ours].view(torch.uint8)):
            return f"{ours} is not what its file holds"
    ids = torch.arange(12)[None] % model.config.vocab_size
    with torch.no_grad():
        got = model(ids)
        try:
            stock = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
            expected = stock(ids, use_cache=False).logits
        except Exception:
            return "equal weights"  # what it refuses we may read
    scale = max(1.0, expected.nan_to_num(0.0, 0.0, 0.0).abs().max().item())
    same = torch.isclose(got, expected, rtol=1e-4, atol=1e-4 * scale, equal_nan=True)
    if not bool(same.all()):
        return f"logits differ by {(got - expected).abs().max().item():g}"
    return "equal weights and logits"


def _say(record: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


def main(good_folder: str, scratch: str, *numbers: str) -> None:
    """Load each case under limits; print what came of it."""
    import resource
    import signal
    import time
    import warnings

    import torch
    import transformers

    from regrow.core.errors import InputError
    from regrow.model.folder import load

    transformers.logging.set_verbosity(50)
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    good = {
        path.name: {file.name: file.read_bytes() for file in sorted(path.iterdir())}
        for path in sorted(Path(good_folder).iterdir())
    }
    for path in sorted(Path(good_folder).iterdir()):
        load(path)

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10

    for number in map(int, numbers):
        place = Path(scratch) / str(number)
        folder, label = spoil(number, good, place)
        before = snapshot(place)
        start, memory = time.perf_counter(), peak()
        model: Any = None
        signal.setitimer(
            signal.ITIMER_REAL, 20.0
        )  # ends a case that hangs, and the program with it
        try:
            model = load(folder)
            outcome = "loaded"
        except InputError as error:
            outcome, message = "refused", str(error)
            if any(not (c.isprintable() or c == "\n") for c in message) or len(message) > 20_000:
                outcome = f"unprintable message of {len(message)}: {message[:200]!r}"
        except BaseException as error:
            outcome = f"{type(error).__name__}: {str(error)[:200]}"
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        record = {
            "case": number,
            "what": label,
            "outcome": outcome,
            "seconds": time.perf_counter() - start,
            "grown": peak() - memory,
            "touched": snapshot(place) != before,
        }
        if model is not None:
            record["compared"] = _compare(folder, model)
        _say(record)


if __name__ == "__main__":
    main(*sys.argv[1:])
