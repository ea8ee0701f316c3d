"""The targets, their comparison with the measurements, and the page of the documentation."""

import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec

from watchkeeper.bench.intervals import ratio
from watchkeeper.bench.model import MODELS

Key = tuple[str, str, int]  # server, encoding, rows
Rates = Mapping[Key, Sequence[float]]  # of equal length for keys that are compared
# What, our server, its peer, and the lowest ratio that is acceptable.
_TARGETS: tuple[tuple[str, Key, Key, float | None], ...] = (
    ("HTTP JSON, 1 row", ("watchkeeper", "json", 1), ("mlserver-sklearn", "json", 1), 40),
    ("HTTP JSON, 1 row", ("watchkeeper", "json", 1), ("fastapi", "json", 1), 40),
    ("HTTP JSON, 1 row", ("watchkeeper", "json", 1), ("constant", "json", 1), 2),
    ("HTTP JSON, 1 row", ("watchkeeper", "json", 1), ("quiet-constant", "json", 1), None),
    ("gRPC, 1 row", ("watchkeeper", "typed", 1), ("mlserver-sklearn", "typed", 1), 25),
    ("gRPC, 1 row", ("watchkeeper", "typed", 1), ("constant", "typed", 1), 0.9),
    ("gRPC, 1 row", ("watchkeeper", "typed", 1), ("quiet-constant", "typed", 1), None),
    ("HTTP binary, 1,024 rows", ("watchkeeper", "binary", 1024), ("mlserver-sklearn", "json", 1024),
     3),
    ("HTTP binary, 1,024 rows", ("watchkeeper", "binary", 1024), ("fastapi", "json", 1024), 3),
    ("gRPC raw, 1,024 rows", ("watchkeeper", "raw", 1024), ("mlserver-sklearn", "raw", 1024), 3),
)  # fmt: skip
# The same for the other models.
_TARGETS_OF_OTHERS: tuple[tuple[str, Key, Key, float | None], ...] = (
    ("HTTP, 1 row", ("watchkeeper", "json", 1), ("mlserver-sklearn", "json", 1), 20),
    ("HTTP, 1 row", ("watchkeeper", "json", 1), ("fastapi", "json", 1), 20),
    ("HTTP, 1,024 rows", ("watchkeeper", "binary", 1024), ("mlserver-sklearn", "json", 1024), 2),
    ("HTTP, 1,024 rows", ("watchkeeper", "binary", 1024), ("fastapi", "json", 1024), 2),
)
PAGE = Path(__file__).resolve().parents[5] / "docs" / "explanation" / "benchmarks.md"
_PACKAGES = ("mlserver", "mlserver-sklearn", "scikit-learn", "xgboost-cpu", "lightgbm",
             "onnxruntime", "fastapi", "uvicorn", "uvloop", "grpcio", "numpy")  # fmt: skip


class Row(msgspec.Struct, frozen=True):
    """One comparison. ``met`` is None if there is no target."""

    what: str
    target: str
    measured: str
    met: bool | None


def compare(rates: Rates) -> list[Row]:
    """Compare with the peers, and requests with and without their record or TLS."""
    rows = [_at_least(rates, *target) for target in _TARGETS]
    for what, encoding in (("HTTP JSON", "json"), ("gRPC", "typed")):
        without, with_records = (
            rates["without-records", encoding, 1],
            rates["with-records", encoding, 1],
        )
        cost = ratio(without, with_records)
        rows.append(
            Row(
                f"{what}, 1 row: cost of the record",
                "≤ 5 %",
                f"{cost.mean - 1:.1%} (upper bound {cost.upper - 1:.1%})",
                cost.upper <= 1.05,
            )
        )
        tls = ratio(rates["watchkeeper", encoding, 1], rates["with-tls", encoding, 1])
        measured = f"{tls.mean - 1:.1%} (upper bound {tls.upper - 1:.1%})"
        rows.append(Row(f"{what}, 1 row: cost of TLS, in open connections", "", measured, None))
    return rows


def compare_other(name: str, rates: Rates) -> list[Row]:
    """Compare with the peers for a model that is not the forest."""
    return [
        _at_least(rates, f"{name}: {what}", ours, theirs, target)
        for what, ours, theirs, target in _TARGETS_OF_OTHERS
    ]


def _at_least(rates: Rates, what: str, ours: Key, theirs: Key, target: float | None) -> Row:
    found = ratio(rates[ours], rates[theirs])
    return Row(
        f"{what}, against {theirs[0]}",
        "" if target is None else f"≥ {target:g}",
        f"{found.mean:.2f} (lower bound {found.lower:.2f})",
        None if target is None else found.lower >= target,
    )


def page(rows: Sequence[Row], rates: Mapping[str, Rates], rounds: int, seconds: float) -> str:
    """Return the page of the documentation."""
    lines = [
        "# Benchmarks",
        "",
        "`make bench-docs` writes this page; `make bench` compares without writing.",
        "",
        "Each server runs alone on one core, while the others are stopped. The load generator runs",
        f"on another core. There are {rounds} rounds. In each round every server answers each kind",
        f"of request for {seconds:g} s, over 8 connections without a pause (`h2load`). Before, all",
        "answers are checked against the pipeline. Ratios are paired within a round; bounds are",
        "one-sided 95 % bounds by Student's t on their logarithms.",
        "",
        "The models have 9 features and are fitted on 10,000 rows:",
        "",
        *(f"- `{each.name}`: {each.what}" for each in MODELS),
        "",
        "Lines that name no model are about `forest`.",
        "",
        "The peers get the requests that are cheapest for them (one tensor, one list). MLServer",
        "runs with its defaults, as in KServe's runtime, with one log line per request; only",
        "`parallel_workers` is 0, which is faster here. Its runtime `constant` has a constant",
        "answer and gets Watchkeeper's requests; `quiet-constant` is the same without the log",
        "lines. The cost of a record is measured in one process whose records are switched off and",
        "on, four times per round.",
        "",
        "| what | target | measured | |",
        "|---|---|---|---|",
        *(f"| {r.what} | {r.target} | {r.measured} | {_verdict(r)} |" for r in rows),
        "",
        "Medians over the rounds:",
        "",
        "| model | server | request | rows | requests per second |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {server} | {encoding} | {count} | {sorted(found)[len(found) // 2]:,.0f} |"
            for name, of_model in rates.items()
            for (server, encoding, count), found in of_model.items()
        ),
        "",
        f"Machine: {machine()}.",
        "",
        f"Versions: {', '.join(f'{name} {version(name)}' for name in _PACKAGES)}.",
        "",
        "To run it yourself: `make bench` (`ROUNDS=20` for narrower bounds). It needs two cores,",
        "`h2load` (Debian: nghttp2-client) and an idle machine, and exits with 1 if a target is",
        "missed.",
    ]
    return "\n".join(lines) + "\n"


def table(rows: Sequence[Row]) -> str:
    """Return the table for the terminal."""
    width = max(len(row.what) for row in rows)
    return "\n".join(f"{r.what:{width}}  {r.target:>6}  {r.measured}  {_verdict(r)}" for r in rows)


def machine() -> str:
    """Return processor, system and Python version."""
    described = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout
    fields = dict(line.split(":", 1) for line in described.splitlines() if ":" in line)
    processor = f"{fields['Model name'].strip()}, {fields['CPU(s)'].strip()} cores"
    return (
        f"{processor}, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    )


def _verdict(row: Row) -> str:
    return {True: "met", False: "**missed**", None: ""}[row.met]
