"""The benchmark runs, and its statistics are right."""

import shutil

import numpy as np
import pytest

from watchkeeper.bench import __main__ as bench
from watchkeeper.bench import report
from watchkeeper.bench.intervals import ratio


def test_ratio_is_paired() -> None:
    speed = np.random.default_rng(0).uniform(1, 10, 20)  # of the machine, per round
    found = ratio((3 * speed).tolist(), speed.tolist())
    assert found.lower == pytest.approx(3)
    assert found.upper == pytest.approx(3)


def test_bounds_cover_in_95_percent_of_runs() -> None:
    random = np.random.default_rng(1)
    low = [
        ratio(random.lognormal(1, 0.2, 8).tolist(), random.lognormal(0, 0.2, 8).tolist()).lower
        for _ in range(2000)
    ]
    assert 0.935 < np.mean(np.array(low) < np.e) < 0.965


def test_one_pair_has_infinite_bounds() -> None:
    found = ratio([100.0], [1.0])
    assert found.mean == pytest.approx(100)
    assert (found.lower, found.upper) == (0.0, float("inf"))


def test_missed_target_is_reported() -> None:
    rates = {(name, encoding, rows): [1.0, 1.0]
             for encoding, rows, names, _ in bench.MEASUREMENTS for name in names}  # fmt: skip
    rows = report.compare(rates)
    assert [row.met for row in rows if "record" in row.what] == [True, True]
    assert [row.met for row in rows].count(True) == 3  # 1 is more than 0.9, too
    assert "**missed**" in report.page(rows, {"forest": rates}, 2, 1.0)


@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed")
def test_short_run_of_two_models(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--rounds", "1", "--seconds", "0.2", "--trees", "5", "--no-targets"]
    arguments += ["--model", "forest", "--model", "classes"]
    assert bench.main(arguments) == 0
    output = capsys.readouterr().out
    assert "against mlserver-sklearn" in output
    assert "classes: HTTP, 1,024 rows, against fastapi" in output
    assert "p99 of accepted requests" in output
