"""Typed settings: defaults, then YAML files, then ``key.path=value`` words; every mistake listed.

A config class is a frozen pydantic model whose fields each carry an attribute docstring; the
command line's help and the docs are made from those. Values are strict: a bool is no integer, a
string is no number, NaN and infinity are refused.
"""

from __future__ import annotations

import hashlib
import json
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from regrow.core.errors import ConfigError
from regrow.core.registry import nearest
from regrow.core.yaml12 import Location, dump_yaml, parse_value, read_yaml

OVERRIDE = re.compile(r"^([a-z_][\w.\-]*)=(.*)$", re.DOTALL)

C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """Base of every group of settings."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
        protected_namespaces=(),
    )

    #: Settings that say how the work is spread, not what is made: they may change on a resume.
    spreading: ClassVar[tuple[str, ...]] = ()

    #: Mappings whose order decides what is made too: other mappings are equal in any order.
    ordered: ClassVar[tuple[str, ...]] = ()

    def identity(self) -> dict[str, Any]:
        """The settings that decide what is made, as a JSON-able object."""
        return self._deciding(self.as_json())

    def _deciding(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Those of ``values`` that decide what is made, and the order of those that have one."""
        kept = {k: v for k, v in values.items() if k not in self.spreading}
        mappings = {k: values[k] for k in self.ordered if isinstance(values.get(k), Mapping)}
        return kept | {f"order of {k}": list(mapping) for k, mapping in mappings.items()}

    def differences_from(self, stored: Mapping[str, Any]) -> list[str]:
        """One line per setting in which ``stored`` would make something else.

        Args:
            stored: resolved settings, perhaps written by an earlier version: a setting that it
                lacks did not exist then, and counts as having its default.
        """
        try:
            there = type(self).model_validate_json(json.dumps(stored)).identity()
        except ValidationError:  # a setting that is gone, or a value no longer possible
            there = self._deciding(stored)
        return differences(there, self.identity())

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed, validated as a whole.

        Raises:
            pydantic.ValidationError: the result is impossible.
        """
        data = self.model_dump(mode="json")
        unknown = set(changes) - set(type(self).model_fields)
        if unknown:
            raise ConfigError(f"{type(self).__name__} has no setting {', '.join(sorted(unknown))}")
        for name, value in changes.items():
            data[name] = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        return type(self).model_validate_json(json.dumps(data, default=str))

    def as_json(self) -> dict[str, Any]:
        """All settings as a JSON-able object."""
        return self.model_dump(mode="json")

    def as_yaml(self) -> str:
        """All settings as YAML that gives the same config when read again."""
        return dump_yaml(self.as_json())


def config_hash(config: Config) -> str:
    """Hex SHA-256 of the settings that decide what is made; equal for equal ones.

    Defaults do not enter it, so a setting that a later version adds changes no hash.
    """
    stated = config._deciding(_stated(config))
    text = json.dumps(stated, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _stated(config: BaseModel) -> dict[str, Any]:
    """The settings that are not at their defaults, and whatever ``kind`` says whose they are."""
    dumped = config.model_dump(mode="json")
    found = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        default = field.get_default(call_default_factory=True, validated_data={})
        if name == "kind" or type(value) is not type(default) or value != default:
            found[name] = _stated_within(value, dumped[name])
    return found


def _stated_within(value: Any, dumped: Any) -> Any:
    """The same for a value that may hold groups of settings; ``dumped`` is its JSON form."""
    if isinstance(value, BaseModel):
        return _stated(value)
    if isinstance(value, (list, tuple)):
        return [_stated_within(v, d) for v, d in zip(value, dumped, strict=True)]
    if isinstance(value, dict):
        pairs = zip(value.values(), dumped.items(), strict=True)
        return {key: _stated_within(v, d) for v, (key, d) in pairs}
    return dumped


def is_override(word: str) -> bool:
    """Whether a command-line word is a ``key.path=value`` setting rather than a bare argument."""
    return OVERRIDE.match(word) is not None


class _Sources:
    """Settings gathered from all sources, with where each came from."""

    def __init__(self, verb: str = "") -> None:
        self.verb = verb
        self.data: dict[str, Any] = {}
        self.origin: dict[Location, str] = {}
        self.raw: dict[Location, str] = {}

    def add_file(self, path: Path) -> None:
        value, lines = read_yaml(path)
        if value is None:
            return
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: a config is a mapping of settings, not {_kind(value)}")
        for location, line in lines.items():
            self.origin[location] = f"{path}:{line}"
        named = value.pop("verb", None) if self.verb else None
        if named not in (None, self.verb):
            raise ConfigError(f"{path} holds settings of {named}, not of {self.verb}")
        self.data = _merge(self.data, value)

    def add_mapping(self, value: Mapping[str, Any], origin: Mapping[Location, str]) -> None:
        self.origin.update(origin)
        self.data = _merge(self.data, dict(value))

    def add_override(self, word: str) -> None:
        match = OVERRIDE.match(word)
        if match is None:
            raise ConfigError(f"{word!r} is no setting; write key.path=value")
        key, text = match.groups()
        parts: list[str | int] = [int(p) if p.isdigit() else p for p in key.split(".")]
        value = parse_value(text)
        node: Any = self.data
        for index, part in enumerate(parts[:-1]):
            child = _child(node, part, word)
            if not isinstance(child, (dict, list)):
                child = {}
            elif isinstance(child, dict):
                child = dict(child)
            else:
                child = list(child)
            if isinstance(node, dict):
                node[str(part)] = child
            else:
                node[typing.cast(int, part)] = child
            parts[index] = part if isinstance(node, list) else str(part)
            node = child
        last = parts[-1]
        if isinstance(node, list):
            if not isinstance(last, int) or last >= len(node):
                raise ConfigError(f"{word}: the list has {len(node)} items, so no item {last}")
            node[last] = value
        else:
            last = str(last)
            parts[-1] = last
            if isinstance(value, dict) and isinstance(node.get(last), dict):
                value = _merge(node[last], value)
            if last == "kind" and node.get("kind") not in (None, value):
                node.clear()
            node[last] = value
        location = tuple(parts)
        self.origin[location] = word
        self.raw[location] = text


def _child(node: Any, part: str | int, word: str) -> Any:
    if isinstance(node, list):
        if not isinstance(part, int) or part >= len(node):
            raise ConfigError(f"{word}: the list has {len(node)} items, so no item {part}")
        return node[part]
    return node.get(str(part))


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Deep merge; where ``kind`` changes, the siblings of the old kind go."""
    if "kind" in over and base.get("kind") not in (None, over["kind"]):
        base = {}
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", bool: "a true/false value"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else "nothing")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Config classes that an annotation can hold, through unions, tuples and Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for argument in typing.get_args(annotation):
        yield from _models(argument)


def _with_default_kinds(cls: type[BaseModel], data: dict[str, Any]) -> dict[str, Any]:
    """Name the default's ``kind`` where the settings of a union leave it out."""
    filled = dict(data)
    for name, field in cls.model_fields.items():
        value = filled.get(name)
        if not isinstance(value, dict):
            continue
        default = field.get_default(call_default_factory=True, validated_data={})
        if isinstance(default, BaseModel) and "kind" in type(default).model_fields:
            value = value if "kind" in value else {"kind": getattr(default, "kind"), **value}  # noqa: B009
        models = list(_models(field.annotation))
        if len(models) == 1 and typing.get_origin(field.annotation) not in (dict, tuple, list):
            value = _with_default_kinds(models[0], value)
        filled[name] = value
    return filled


def _within(data: Any, location: Sequence[str | int]) -> Location:
    """The part of a pydantic error location that names settings (not union tags or types)."""
    kept: list[str | int] = []
    node: Any = data
    for position, part in enumerate(location):
        keys: Any = range(len(node)) if isinstance(node, list) else node
        last = position == len(location) - 1
        if isinstance(keys, (dict, range)) and part in keys:
            node = node[part]
        elif isinstance(node, dict) and last and isinstance(part, str):
            kept.append(part)  # a missing setting
            break
        else:
            continue
        kept.append(part)
    return tuple(kept)


def _siblings(cls: type[BaseModel], location: Location) -> list[str]:
    """Names of the settings that stand beside ``location``."""
    classes: list[type[BaseModel]] = [cls]
    for part in location[:-1]:
        inner: list[type[BaseModel]] = []
        for candidate in classes:
            field = candidate.model_fields.get(str(part))
            inner.extend(_models(field.annotation) if field else ())
        classes = inner or classes  # an index or a free key: still the same classes
    return sorted({name for candidate in classes for name in candidate.model_fields})


def _problem(error: Mapping[str, Any], location: Location, cls: type[BaseModel]) -> str:
    """One line that says what is wrong with the setting at ``location``."""
    key = ".".join(map(str, location)) or "config"
    kind, value = error["type"], error.get("input")
    if kind == "extra_forbidden":
        known = _siblings(cls, location)
        hint = nearest(str(location[-1]), known) or f" (known: {', '.join(known)})"
        return f"{key}: unknown key{hint}"
    if kind == "missing":
        return f"{key}: required, but not set"
    message = str(error["msg"]).removeprefix("Value error, ")
    if kind in ("value_error", "assertion_error"):
        return f"{key}: {message}" if location else message
    message = message.removeprefix("Input should be ")
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return f"{key}: {message}"
    return f"{key}: {value!r} should be {message}"


def _remove(data: Any, location: Location) -> bool:
    """Take the entry at ``location`` out of nested dicts; False where it is not in one."""
    node: Any = data
    for part in location[:-1]:
        known = isinstance(node, list) or part in node
        if not known:
            return False
        node = node[part]
    if location and isinstance(node, dict) and location[-1] in node:
        del node[location[-1]]
        return True
    return False


def _where(location: Location, sources: _Sources) -> str:
    for length in range(len(location), 0, -1):
        origin = sources.origin.get(location[:length])
        if origin:
            return origin
    return ""


def _validate(cls: type[C], sources: _Sources) -> C:
    """The config; or every problem at once.

    A model's own cross-checks run only once its fields are sound, so after collecting what is
    wrong the bad entries are left out and the rest is checked again, until nothing new is found.
    """
    data = _with_default_kinds(cls, json.loads(json.dumps(sources.data)))
    found: dict[tuple[Location, str], str] = {}
    removed: set[Location] = set()
    for _ in range(8):
        try:
            config = cls.model_validate_json(json.dumps(data))
        except ValidationError as error:
            progress = False
            for detail in error.errors(include_url=False):
                location = _within(data, detail["loc"])
                if detail["type"] == "string_type" and location in sources.raw:
                    _set(data, location, sources.raw.pop(location))
                    progress = True
                    continue
                if detail["type"] == "missing" and location in removed:
                    continue
                line = _problem(detail, location, cls)
                if (location, line) not in found:
                    where = _where(location, sources)
                    found[(location, line)] = f"{where}: {line}" if where else line
                if detail["type"] not in ("value_error", "missing") and _remove(data, location):
                    removed.add(location)
                    progress = True
            if not progress:
                break
        else:
            if not found:
                return config
            break
    problems = [found[key] for key in found]
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    raise ConfigError(f"{count} in the config", problems)


def _set(data: Any, location: Location, value: Any) -> None:
    node = data
    for part in location[:-1]:
        node = node[part]
    node[location[-1]] = value


def load_config(
    cls: type[C],
    files: Sequence[Path] = (),
    overrides: Sequence[str] = (),
    base: Mapping[str, Any] | None = None,
    origin: Mapping[Location, str] | None = None,
    verb: str = "",
) -> C:
    """A validated config from, weakest first: defaults, ``base``, each file, each override.

    Args:
        cls: the config class.
        files: YAML files, deep-merged in this order.
        overrides: ``key.path=value`` words; values are YAML 1.2 flow text.
        base: settings already in memory, such as a recipe stage's.
        origin: where each entry of ``base`` came from, for messages.
        verb: the verb whose settings these are; a run folder's ``config.yaml`` names it.

    Raises:
        ConfigError: with every problem, each with its file and line or its word.
    """
    sources = _Sources(verb)
    if base:
        sources.add_mapping(base, origin or {})
    for path in files:
        sources.add_file(path)
    problems = []
    for word in overrides:
        try:
            sources.add_override(word)
        except ConfigError as error:
            problems.append(error.message)
    if problems:
        raise ConfigError("cannot read a setting", problems)
    return _validate(cls, sources)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One line per setting that differs between two resolved configs."""
    lines = []
    for key in [*old, *(k for k in new if k not in old)]:
        name = f"{prefix}{key}"
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines.extend(differences(before, after, f"{name}."))
        elif before != after:
            lines.append(f"{name}: {json.dumps(before)} there, {json.dumps(after)} now")
    return lines


def describe_fields(cls: type[BaseModel], prefix: str = "") -> list[tuple[str, str, str, str]]:
    """``(key, type, default, description)`` of each setting, nested ones by their dotted key.

    Settings that may be left out, listed or named have a row of their own before what is in them:
    ``shape`` and ``shape.layers``, ``phases`` and ``phases[].weights``, ``children`` and
    ``children.NAME.budget``.
    """
    from pydantic_core import PydanticUndefined

    rows = []
    for name, field in cls.model_fields.items():
        key = f"{prefix}{name}"
        inner = list(_models(field.annotation))
        if len(inner) == 1 and inner[0] is field.annotation:
            rows.extend(describe_fields(inner[0], f"{key}."))
            continue
        default = field.get_default(call_default_factory=True, validated_data={})
        if default is PydanticUndefined:
            shown = "required"
        elif isinstance(default, BaseModel):
            shown = json.dumps(default.model_dump(mode="json"))
        else:
            shown = json.dumps(default, default=str)
        rows.append((key, _type_name(field.annotation), shown, field.description or ""))
        if len(inner) == 1:
            origin = typing.get_origin(field.annotation)
            parts: dict[Any, str] = {dict: ".NAME", tuple: "[]", list: "[]"}
            part = parts.get(origin, "")
            rows.extend(describe_fields(inner[0], f"{key}{part}."))
    return rows


def _type_name(annotation: Any) -> str:
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "settings"
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return {"str": "text", "PosixPath": "path", "Path": "path"}.get(
            annotation.__name__, annotation.__name__
        )
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return "|".join(map(str, arguments))
    if origin is typing.Annotated:
        return _type_name(arguments[0])
    if origin in (tuple, list):
        return f"list of {_type_name(arguments[0])}" if arguments else "list"
    if origin is dict:
        return f"mapping of {_type_name(arguments[1])}"
    return "|".join(dict.fromkeys(map(_type_name, arguments))) or str(annotation)
