"""The table of verbs with one more: ``make``."""

from __future__ import annotations

import pytest

from regrow.grow import verbs


@pytest.fixture(autouse=True)
def make_verb(monkeypatch: pytest.MonkeyPatch) -> verbs.Verb:
    verb = verbs.Verb(
        "make", "tests.grow.fakes:MakeConfig", "tests.grow.fakes", "make a value", "regrow make"
    )
    monkeypatch.setitem(verbs.VERBS, "make", verb)
    return verb
