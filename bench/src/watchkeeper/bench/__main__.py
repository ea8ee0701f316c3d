"""``python -m watchkeeper.bench``: measure, compare, and end with 1 if a target is missed."""

import argparse
import logging
import os
import random
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from watchkeeper.bench import cases, load, model, openloop, report
from watchkeeper.bench.servers import LOAD_CORE, Server, started

log = logging.getLogger("watchkeeper.bench")
ALL = ("watchkeeper", "mlserver-sklearn", "constant", "quiet-constant")
SWITCHED = ("with-records", "without-records")
# Of whom, and how many times a round: the record costs so little that it takes many to see it.
ASKED: tuple[tuple[str, int, tuple[str, ...], int], ...] = (
    ("json", 1, (*ALL, "fastapi"), 1),
    ("json", 1, SWITCHED, 4),
    ("typed", 1, ALL, 1),
    ("typed", 1, SWITCHED, 4),
    ("binary", 1024, ("watchkeeper",), 1),
    ("json", 1024, ("mlserver-sklearn", "fastapi"), 1),
    ("raw", 1024, ("watchkeeper", "mlserver-sklearn"), 1),
)
_OVERLOAD = 3.0


def main(arguments: list[str]) -> int:
    """Run the benchmark; 2 if something that it needs is missing."""
    options = _options().parse_args(arguments)
    logging.basicConfig(level="INFO", format="%(asctime)s %(message)s")
    missing = load.available()
    if missing or (os.cpu_count() or 1) < 2:
        print(missing or "two cores are needed", file=sys.stderr)
        return 2
    logging.getLogger("httpx").setLevel("WARNING")
    os.sched_setaffinity(0, {int(LOAD_CORE)})
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        folder = Path(temporary) / "model"
        log.info("making the model: %d trees of depth %d", options.trees, model.DEPTH)
        pipeline = model.make(folder, options.trees)
        with started(folder) as servers:
            rates = measure(servers, folder, pipeline, options.rounds, options.seconds)
            rows = report.compare(rates)
            rows += overload(servers["watchkeeper"], folder, rates, options.seconds)
    print(report.table(rows))
    if options.write:
        report.PAGE.write_text(report.page(rows, rates, options.rounds, options.seconds))
    return 0 if options.no_targets or all(row.met is not False for row in rows) else 1


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m watchkeeper.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=0.6, help="a server and kind of request")
    parser.add_argument("--trees", type=int, default=model.TREES)
    parser.add_argument("--write", action="store_true", help=f"write {report.PAGE.name}")
    parser.add_argument("--no-targets", action="store_true", help="end with 0 whatever was met")
    return parser


Rates = dict[tuple[str, str, int], list[float]]


def measure(
    servers: dict[str, Server], folder: Path, pipeline: object, rounds: int, seconds: float
) -> Rates:
    """Check all answers, then measure everything each round, in an order of its own each time."""
    asked: dict[tuple[str, str, int], cases.Case] = {}
    for encoding, count, names, _ in ASKED:
        rows = model.rows(count, seed=3)
        expected = model.probabilities(pipeline, rows)
        for name in names:
            found = cases.case(servers[name], encoding, rows, folder)
            with servers[name].running():
                cases.check(servers[name], found, expected)
            asked[name, encoding, count] = found
    log.info("all answers agree with the pipeline")
    rates: Rates = defaultdict(list)
    for number in range(rounds):
        for encoding, count, names, times in ASKED:
            for name in (each for _ in range(times) for each in random.sample(names, len(names))):
                with servers[name].running():
                    key = (name, encoding, count)
                    rates[key].append(load.requests_per_second(servers[name], asked[key], seconds))
        log.info("round %d of %d", number + 1, rounds)
    return {key: rates[key] for key in asked}


def overload(server: Server, folder: Path, rates: Rates, seconds: float) -> list[report.Row]:
    """Ask for three times what the server can take, and compare with a tenth of it."""
    asked = cases.case(server, "json", model.rows(1, seed=3), folder)
    capacity = max(rates["watchkeeper", "json", 1])
    with server.running():
        quiet = openloop.ask(asked, server.http, capacity / 10, max(2 * seconds, 4))
        before = server.memory()
        busy = openloop.ask(asked, server.http, capacity * _OVERLOAD, max(4 * seconds, 8))
        grown = server.memory() - before
    unloaded, loaded = quiet.quantile(0.99), busy.quantile(0.99)
    answered = len(busy.accepted) + busy.turned_away
    return [
        report.Row(
            f"HTTP, {_OVERLOAD:g} times {capacity:,.0f}/s open loop: p99 of the accepted",
            "< 10 times",
            f"{loaded / unloaded:.1f} times ({loaded * 1e3:.1f} ms, at a tenth of the load "
            f"{unloaded * 1e3:.2f} ms); {len(busy.accepted) / max(answered, 1):.0%} accepted",
            loaded < 10 * unloaded,
        ),
        report.Row(
            "HTTP overload: turned away with Retry-After",
            "all",
            f"{busy.turned_away - busy.without_retry_after:,} of {busy.turned_away:,}",
            busy.turned_away > 0 and not busy.without_retry_after,
        ),
        report.Row("HTTP overload: memory", "< 64 MiB", f"+{grown:.0f} MiB", grown < 64),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
