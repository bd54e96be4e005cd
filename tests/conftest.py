"""What all tests share: the folder of real data, and how hypothesis behaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

if os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of torch, whose threads would wait for each other's cores

pytest.register_assert_rewrite("commands", "contract", "elsewhere", "structures")

# no deadline: the first call of a kernel compiles it. Derandomised: a red test stays red, on every machine.
settings.register_profile(
    "quests_zenn",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("quests_zenn")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real data sets, named by the environment variable QUESTS_ZENN_DATA."""
    name = os.environ.get("QUESTS_ZENN_DATA")
    if not name:
        pytest.skip("QUESTS_ZENN_DATA is not set: it names the folder of data sets that this test reads")
    folder = Path(name)
    if not folder.is_dir():
        pytest.skip(f"QUESTS_ZENN_DATA names {name}, which is no folder")
    return folder
