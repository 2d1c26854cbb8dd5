import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: test processes share few cores


@pytest.fixture(scope="session")
def free_ports() -> Callable[[], int]:
    return _free_port


@pytest.fixture
def free_port() -> int:
    return _free_port()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests share one cache of their own: they neither use nor fill the user's."""
    if "RISLAB_CACHE" not in os.environ:
        # The parent of the base folder is common to all xdist workers, so a tiny CLIP is trained once.
        base = tmp_path_factory.getbasetemp()
        shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
        os.environ["RISLAB_CACHE"] = str(Path(shared) / "rislab-cache")


SLOWEST = ("e2e", "faults", "plugin", "launch", "cli", "api")
"""Folders of the files that take longest: they begin first, so that the workers end together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not any(part in SLOWEST for part in item.path.parts))
