"""Hugging Face model folders: ``config.json`` and safetensors in one or several files.

Nothing is executed and no pickle is opened. A folder comes from strangers, so names, kinds and
sizes are checked before anything is read, and whatever is wrong is one InputError that names the
file.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from regrow.core.atomic import staged_folder
from regrow.core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

#: Configs of real models take a few KiB; an index takes about 100 bytes a tensor.
_MAX_CONFIG_BYTES = 4 << 20
_MAX_INDEX_BYTES = 32 << 20
_UNSAFE = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".npy", ".npz", ".h5", ".msgpack")
_DTYPES = ("F64", "F32", "F16", "BF16")


def printable(text: str) -> str:
    """A name that a stranger chose, as one short line that no terminal takes for a command."""
    safe = text if text.isprintable() else ascii(text)
    return safe if len(safe) <= 120 else f"{safe[:117]}..."


class TensorInfo(NamedTuple):
    """What a file's header says of one tensor."""

    shape: tuple[int, ...]
    dtype: str
    """In safetensors' words: F64, F32, F16 or BF16."""
    file: Path
    stored: str
    """Its name there."""


def check_regular(path: Path) -> Path:
    """``path`` itself, when it is a regular file that lies where its name says.

    Raises:
        InputError: missing, a link that leads out of its folder, a device, a pipe, a folder.
    """
    try:
        status = path.stat()
        outside = path.is_symlink() and path.resolve().parent != path.parent.resolve()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    if outside:
        raise InputError(
            f"{path}: a link that leads out of its folder; copy the folder with its links resolved "
            "(cp -rL) and use the copy"
        )
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: not a regular file")
    return path


def read_json_object(path: Path, limit: int = _MAX_CONFIG_BYTES) -> dict[str, Any]:
    """The object that a JSON file of at most ``limit`` bytes holds.

    Raises:
        InputError: missing, not a regular file, too large, not UTF-8, not JSON, not an object.
    """
    check_regular(path)
    if path.stat().st_size > limit:
        raise InputError(f"{path}: larger than {limit >> 20} MiB, so no such file of a model")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: must hold a JSON object, not {type(value).__name__}")
    return value


def read_config(folder: Path) -> dict[str, Any]:
    """The content of ``config.json``.

    Raises:
        InputError: there is none, it is broken, or it asks for code of its own to be run.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder of a Hugging Face model")
    path = folder / CONFIG
    if not path.exists():
        raise InputError(f"{folder}: has no {CONFIG}, so it is not a Hugging Face model folder")
    config = read_json_object(path)
    for key in ("auto_map", "trust_remote_code", "custom_pipelines"):
        if config.get(key):
            raise InputError(
                f"{path}: {key} asks for code of the folder to be run, which regrow never does; "
                "convert the model to a stock class first"
            )
    if config.get("quantization_config"):
        raise InputError(
            f"{path}: the weights are quantised (quantization_config); use the unquantised model"
        )
    return config


class Weights:
    """Tensors of a folder, read one by one from their files.

    Made by :func:`open_weights`; a context manager that closes the files.
    """

    def __init__(self, folder: Path, infos: dict[str, TensorInfo]) -> None:
        self.folder = folder
        self.infos = infos
        self._open: dict[Path, Any] = {}

    @property
    def names(self) -> list[str]:
        """Names of all tensors, file by file."""
        return list(self.infos)

    def rename(self, beginnings: Iterable[tuple[str, str]]) -> None:
        """Call tensors by another name from here on.

        Args:
            beginnings: pairs of the beginning of a name and what stands there instead, applied in
                order.

        Raises:
            InputError: two tensors would have one name.
        """
        renamed: dict[str, TensorInfo] = {}
        pairs = list(beginnings)
        for name, info in self.infos.items():
            for old, new in pairs:
                if name.startswith(old):
                    name = new + name.removeprefix(old)
            if name in renamed:
                raise InputError(
                    f"{info.file}: {printable(info.stored)} and "
                    f"{printable(renamed[name].stored)} are the same tensor; keep one of them"
                )
            renamed[name] = info
        self.infos = renamed

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, from its header."""
        return self.infos[name].shape

    def dtype(self, name: str) -> str:
        """Dtype of a tensor in safetensors' words, from its header."""
        return self.infos[name].dtype

    def tensor(self, name: str) -> Tensor:
        """A copy of one tensor, in the dtype of its file, on the CPU.

        Raises:
            InputError: the file changed or broke since it was opened.
        """
        return self.mapped(name).clone()  # the file's own memory map must not outlive it

    def mapped(self, name: str) -> Tensor:
        """One tensor as it lies in the memory map of its file: no copy, not to be written to.

        It keeps its own map, whose pages are read when they are used; the system may take them back
        at any time. :meth:`close` lets go of the maps that no tensor needs.

        Raises:
            InputError: the file changed or broke since it was opened.
        """
        info = self.infos[name]
        with _broken(info.file):
            if info.file not in self._open:
                self._open[info.file] = _safe_open(info.file)
            tensor: Tensor = self._open[info.file].get_tensor(info.stored)
            return tensor

    def close(self) -> None:
        """Forget the open files."""
        self._open.clear()

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _safe_open(path: Path) -> Any:
    from safetensors import safe_open

    return safe_open(path, framework="pt")


@contextmanager
def _broken(path: Path) -> Iterator[None]:
    """Turn whatever safetensors raises into one InputError that names the file."""
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{path}: truncated or broken safetensors file ({printable(str(error))}); "
            "fetch or make it again"
        ) from None


def _read_header(path: Path) -> dict[str, TensorInfo]:
    infos = {}
    with _broken(path):
        file = _safe_open(path)
        for name in file.keys():  # noqa: SIM118 (no mapping)
            view = file.get_slice(name)
            infos[name] = TensorInfo(tuple(view.get_shape()), str(view.get_dtype()), path, name)
    for name, info in infos.items():
        if info.dtype not in _DTYPES:
            raise InputError(
                f"{path}: tensor {printable(name)} has dtype {info.dtype}; "
                f"supported: {', '.join(_DTYPES)}"
            )
    return infos


def _read_index(path: Path) -> dict[str, str]:
    """Tensor name to the base name of its file, as an index says."""
    table = read_json_object(path, _MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise InputError(f"{path}: has no weight_map; fetch the index again")
    checked: set[str] = set()
    for name, file in table.items():
        if isinstance(file, str) and file in checked:
            continue
        where = f"{path}: {printable(name)} lies in {printable(repr(file))}"
        if not _is_plain(file):
            raise InputError(f"{where}, which is not a plain file name")
        if not file.endswith(".safetensors"):
            raise InputError(f"{where}; only .safetensors files are read")
        checked.add(file)
    return table


def _is_plain(file: object) -> bool:
    """Whether an index's entry can only name a file of its own folder, on any system."""
    if not isinstance(file, str) or not file.isprintable() or len(file.encode()) > 255:
        return False
    return not any(mark in file for mark in "/\\:") and file not in ("", ".", "..")


def open_weights(folder: Path) -> Weights:
    """The tensors of a folder, from headers only.

    Raises:
        InputError: no safetensors (naming what is there instead), a broken header, an index that
            points elsewhere, a missing shard, a tensor that is missing, doubled or not announced.
    """
    folder = Path(folder)
    index, single = folder / INDEX, folder / SINGLE
    if not index.exists():
        if not single.exists():
            raise InputError(_no_weights(folder))
        return Weights(folder, _read_header(check_regular(single)))
    table = _read_index(index)
    files = sorted(set(table.values()))
    present = {path.name for path in folder.iterdir()}
    missing = [file for file in files if file not in present]
    if missing:
        raise InputError(
            f"{index}: names {len(missing)} file(s) that {folder} lacks: {', '.join(missing[:5])}; "
            "fetch the missing shards"
        )
    infos: dict[str, TensorInfo] = {}
    for file in files:
        for name, info in _read_header(check_regular(folder / file)).items():
            if name in infos:
                raise InputError(
                    f"{folder / file}: tensor {printable(name)} is also in {infos[name].file.name}"
                )
            if table.get(name) != file:
                raise InputError(
                    f"{folder / file}: holds tensor {printable(name)}, which {INDEX} does not "
                    "place there"
                )
            infos[name] = info
    absent = sorted(set(table) - set(infos))
    if absent:
        raise InputError(
            f"{folder / table[absent[0]]}: lacks {len(absent)} tensor(s) that {INDEX} places "
            f"there, such as {printable(absent[0])}; fetch it again"
        )
    return Weights(folder, infos)


def _no_weights(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder}: no such folder"
    unsafe = sorted(p.name for p in folder.iterdir() if p.suffix in _UNSAFE)
    if unsafe:
        return (
            f"{folder}: has weights only in {unsafe[0]}, a format that can run code when it is "
            f"read and is never opened; get or convert to {SINGLE} (transformers' save_pretrained "
            "writes it)"
        )
    return f"{folder}: has neither {SINGLE} nor {INDEX}"


def write_folder(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Iterable[tuple[str, Tensor]],
    generation_config: Mapping[str, Any] | None = None,
    max_shard_bytes: int = 5_000_000_000,
) -> Path:
    """Write a model folder, whole or not at all; equal arguments give equal bytes.

    Args:
        folder: where to; an earlier folder there is replaced.
        config: content of ``config.json``.
        tensors: names and tensors in order; taken one by one, so they may be made on the way.
        generation_config: content of ``generation_config.json``; none is written without.
        max_shard_bytes: a file closes before it would exceed this (one tensor may exceed it).

    Returns:
        ``folder``.
    """
    with staged_folder(Path(folder)) as staging:
        write_folder_into(staging, config, tensors, generation_config, max_shard_bytes)
    return Path(folder)


def write_folder_into(
    staging: Path,
    config: Mapping[str, Any],
    tensors: Iterable[tuple[str, Tensor]],
    generation_config: Mapping[str, Any] | None = None,
    max_shard_bytes: int = 5_000_000_000,
) -> None:
    """As :func:`write_folder`, into an existing folder that the caller publishes."""
    write_settings(staging, config, generation_config)
    shards: list[tuple[Path, list[str]]] = []
    total = 0
    for number, shard in enumerate(_shards(tensors, max_shard_bytes)):
        path = staging / f"shard-{number}.safetensors"
        total += sum(tensor.nbytes for tensor in shard.values())
        save_tensors(path, shard)
        shards.append((path, list(shard)))
    if len(shards) == 1:
        shards[0][0].rename(staging / SINGLE)
        return
    table = {}
    for number, (path, names) in enumerate(shards):
        final = shard_name(number, len(shards))
        path.rename(staging / final)
        table.update(dict.fromkeys(names, final))
    write_index(staging, table, total)


def shard_name(number: int, count: int) -> str:
    """File name of shard ``number`` (from 0) of ``count``, as every loader expects it."""
    return SINGLE if count == 1 else f"model-{number + 1:05d}-of-{count:05d}.safetensors"


def write_settings(
    folder: Path, config: Mapping[str, Any], generation_config: Mapping[str, Any] | None
) -> None:
    """Write ``config.json``, and ``generation_config.json`` where there is one."""
    _dump(folder / CONFIG, config)
    if generation_config is not None:
        _dump(folder / GENERATION_CONFIG, generation_config)


def write_index(folder: Path, table: Mapping[str, str], total: int) -> None:
    """Write the index of several shards.

    Args:
        folder: where to.
        table: tensor name to file name.
        total: bytes of all tensors.
    """
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(table.items()))}
    _dump(folder / INDEX, index)


def _shards(tensors: Iterable[tuple[str, Tensor]], limit: int) -> Iterator[dict[str, Tensor]]:
    """Groups of tensors in order, each of at most ``limit`` bytes or of one tensor."""
    shard: dict[str, Tensor] = {}
    size = 0
    seen: set[str] = set()
    for name, tensor in tensors:
        if name in seen:
            raise ValueError(f"two tensors are called {name}")
        seen.add(name)
        if shard and size + tensor.nbytes > limit:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor.detach().to("cpu").contiguous()
        size += tensor.nbytes
    yield shard


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one safetensors file of contiguous tensors on the CPU; equal ones give equal bytes."""
    from safetensors.torch import save_file

    # Every loader expects this mark; a second key would be written in a random order.
    save_file(dict(tensors), path, metadata={"format": "pt"})


def _dump(path: Path, value: Mapping[str, Any]) -> None:
    text = json.dumps(dict(value), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
