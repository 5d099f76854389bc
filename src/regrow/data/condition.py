"""Conditions on columns, such as ``quality = 'High' AND toxicity < 0.3``; nothing else is run.

    condition  := conjunction (OR conjunction)*
    conjunction := negation (AND negation)*
    negation   := NOT negation | ( condition ) | comparison
    comparison := value sign value | column [NOT] IN ( literal, ... )
    sign       := = | == | != | <> | < | <= | > | >=
    value      := column | literal
    literal    := number | 'text' | true | false

Words of the language may be in either case. As in SQL, nothing holds of a column that is null.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from regrow.core.errors import ConfigError

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    |(?P<word>[A-Za-z_]\w*)|(?P<sign><=|>=|<>|!=|==|[=<>(),]))""",
    re.VERBOSE,
)
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": pc.equal,
    "==": pc.equal,
    "!=": pc.not_equal,
    "<>": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_DEEPEST = 50
_WORDS = {"AND", "OR", "NOT", "IN", "TRUE", "FALSE"}

Evaluate = Callable[[pa.RecordBatch], Any]


@dataclass(frozen=True)
class Condition:
    """A condition that was read; it can be pickled as its text.

    Args:
        text: as written.
        setting: where it stands, for messages.
        columns: that it reads, in their order.
    """

    text: str
    setting: str
    columns: tuple[str, ...]

    @classmethod
    def read(cls, text: str, setting: str) -> Condition:
        """Check a condition.

        Args:
            text: the condition.
            setting: where it stands, for messages.

        Raises:
            ConfigError: it is none, with the place; or it reads no column.
        """
        parser = _Parser(text, setting)
        parser.whole()
        if not parser.columns:
            raise ConfigError(f"{setting}: {text!r} reads no column; compare one with a value")
        return cls(text, setting, tuple(dict.fromkeys(parser.columns)))

    def check(self, columns: pa.Schema) -> None:
        """Look whether it can be asked of such columns; those that it reads are among them.

        Raises:
            ConfigError: a column is compared with a value of another kind.
        """
        try:
            self.holds(pa.RecordBatch.from_pylist([], columns))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            kinds = ", ".join(f"{name} ({columns.field(name).type})" for name in self.columns)
            reason = str(error).partition("\n")[0]
            raise ConfigError(
                f"{self.setting}: {self.text!r} compares what cannot be compared: {reason}; its "
                f"columns are {kinds}, text stands in single quotes"
            ) from error

    def holds(self, batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
        """``(rows,)`` whether it holds."""
        found = pc.fill_null(_Parser(self.text, self.setting).whole()(batch), False)
        plain: npt.NDArray[np.bool_] = found.to_numpy(zero_copy_only=False)
        return plain


class _Parser:
    """Recursive descent; each rule gives a function of a batch."""

    def __init__(self, text: str, setting: str) -> None:
        self.text, self.setting = text, setting
        self.columns: list[str] = []
        self.tokens = list(self._cut())
        self.at = self.depth = 0

    def _cut(self) -> Iterator[tuple[str, str, int]]:
        place = 0
        while place < len(self.text.rstrip()):
            match = _TOKEN.match(self.text, place)
            if match is None:
                raise self._error(place, "this is no part of a condition")
            kind = str(match.lastgroup)
            token, start = match[kind], match.start(kind)
            if kind == "word" and token.upper() in _WORDS:
                kind, token = "key", token.upper()
            yield kind, token, start
            place = match.end()

    def _error(self, place: int, why: str) -> ConfigError:
        here = self.text[place : place + 20].strip() or "its end"
        return ConfigError(
            f"{self.setting}: {self.text!r}, at {here!r}: {why}; write columns, numbers, 'text', "
            "= != < <= > >=, IN (...), AND, OR, NOT and parentheses"
        )

    def _next(self) -> tuple[str, str, int]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("", "", len(self.text))

    def _take(self, *wanted: str) -> str:
        """The next token, if it is one of these."""
        kind, token, _ = self._next()
        if kind in ("key", "sign") and token in wanted:
            self.at += 1
            return token
        return ""

    def _need(self, wanted: str) -> None:
        if not self._take(wanted):
            raise self._error(self._next()[2], f"{wanted} is missing")

    def whole(self) -> Evaluate:
        found = self._either()
        if self.at < len(self.tokens):
            raise self._error(self._next()[2], "nothing may stand here")
        return found

    def _either(self) -> Evaluate:
        found = self._both()
        while self._take("OR"):
            found = _joined(pc.or_kleene, found, self._both())
        return found

    def _both(self) -> Evaluate:
        found = self._negation()
        while self._take("AND"):
            found = _joined(pc.and_kleene, found, self._negation())
        return found

    def _negation(self) -> Evaluate:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self._error(self._next()[2], f"it is nested more than {_DEEPEST} deep")
        if self._take("NOT"):
            inner = self._negation()
            found: Evaluate = lambda batch: pc.invert(inner(batch))  # noqa: E731
        elif self._take("("):
            found = self._either()
            self._need(")")
        else:
            found = self._comparison()
        self.depth -= 1
        return found

    def _comparison(self) -> Evaluate:
        kind, name, _ = self._next()
        left = self._value()
        sign = self._take(*_COMPARE)
        if sign:
            return _joined(_COMPARE[sign], left, self._value())
        negated = bool(self._take("NOT"))
        place = self._next()[2]
        if not self._take("IN"):
            raise self._error(place, "a comparison is missing")
        if kind != "word":
            raise self._error(place, "only a column can be IN something")
        self._need("(")
        values = [self._literal()]
        while self._take(","):
            values.append(self._literal())
        self._need(")")

        def inside(batch: pa.RecordBatch) -> Any:
            column = batch[name]
            found = pc.is_in(column, pa.array(values).cast(column.type))
            found = pc.if_else(pc.is_valid(column), found, None)
            return pc.invert(found) if negated else found

        return inside

    def _value(self) -> Evaluate:
        kind, token, _ = self._next()
        if kind == "word":
            self.at += 1
            self.columns.append(token)
            return lambda batch: batch[token]
        value = self._literal()
        kind_of = pa.scalar(value).type  # told also where there is no row
        return lambda batch: pa.array([value] * batch.num_rows, kind_of)

    def _literal(self) -> Any:
        kind, token, place = self._next()
        self.at += 1
        if kind == "number":
            return float(token) if re.search("[.eE]", token) else int(token)
        if kind == "text":
            return token[1:-1].replace("''", "'")
        if token in ("TRUE", "FALSE"):
            return token == "TRUE"
        raise self._error(place, "a column or a value is missing")


def _joined(function: Callable[[Any, Any], Any], left: Evaluate, right: Evaluate) -> Evaluate:
    return lambda batch: function(left(batch), right(batch))
