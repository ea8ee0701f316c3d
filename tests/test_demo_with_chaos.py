"""The demonstration with chaos, as `make chaos` runs it: every kind of process is killed once."""

import json
import subprocess
from pathlib import Path

import pytest
from system import PYTHON, processes_of

from watchkeeper.demo.plants import simulated


@pytest.mark.nightly
def test_the_loop_completes_although_every_kind_of_process_is_killed_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [PYTHON, "-m", "watchkeeper.demo", simulated()[-1], "--chaos"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    summary = json.loads((tmp_path / ".watchkeeper/demo/summary.json").read_text())
    assert len(summary["killed"]) == 5
    assert (summary["promoted"], summary["rolled_back"]) == ([1, 2], [3])
    for counts in summary["requests"].values():
        assert counts["sent"] == counts["answered"] == counts["in_ledger"] > 0
        assert counts["failed"] == counts["wrong"] == 0
    assert processes_of(tmp_path / ".watchkeeper/demo/system") == {}
