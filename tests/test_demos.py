"""The demonstration as `make chaos` runs it, and as `make demo` does for each model on MariaDB."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from databases import running
from system import PYTHON, processes_of

from watchkeeper.demo.plants import simulated

pytestmark = pytest.mark.nightly


def demonstrated(folder: Path, *words: str) -> dict[str, Any]:
    """Run the demonstration in a folder, and return its summary."""
    done = subprocess.run(
        [PYTHON, "-m", "watchkeeper.demo", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    summary: dict[str, Any] = json.loads((folder / ".watchkeeper/demo/summary.json").read_text())
    assert (summary["promoted"], summary["rolled_back"]) == ([1, 2], [3])
    for counts in summary["requests"].values():
        assert counts["sent"] == counts["answered"] == counts["in_ledger"] > 0
        assert counts["failed"] == counts["wrong"] == 0
    assert processes_of(folder / ".watchkeeper/demo/system") == {}
    return summary


def test_the_loop_completes_although_every_kind_of_process_is_killed_once(tmp_path: Path) -> None:
    assert len(demonstrated(tmp_path, simulated()[-1], "--chaos")["killed"]) == 5


@pytest.mark.parametrize("model", simulated())
def test_the_loop_closes_with_operational_data_and_ledger_in_mariadb(
    model: str, tmp_path: Path
) -> None:
    with running("mariadb") as server:
        source, ledger = server.create(), server.create()
        demonstrated(tmp_path, model, "--source", source, "--ledger", ledger)
