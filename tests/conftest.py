"""What holds for every test: one thread, no network, the data folder where there is one."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

from regrow.core.engines import prepare_engines

prepare_engines()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to another machine is a defect: it raises."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if self.family != socket.AF_UNIX and host not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test opened a connection to {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def data_folder() -> Path:
    """The folder of real data sets, named by REGROW_DATA; the test is skipped without it."""
    name = os.environ.get("REGROW_DATA")
    if not name or not Path(name).is_dir():
        pytest.skip("REGROW_DATA names no folder of data sets")
    return Path(name)
