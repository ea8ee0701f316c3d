"""False alarms and detection delays of the watch, measured on synthetic streams.

    drift/.venv/bin/python drift/simulations/alarms.py --seeds 30
    drift/.venv/bin/python drift/simulations/alarms.py --seeds 5 "i.i.d." "AR 0.9"

Each stream has 9 or 100 numeric columns, one category and one score that depends on three of the
columns. Numeric columns may lack values, which come and go as slowly as the values do. A history of
10,000 rows makes the reference, as training makes it. The watch examines every window of the
stream with the default policy, and the rules of episodes decide. Nothing is stored: no ledger, no
registry, no files. A line of output is one case; ``--json`` prints one line for each seed instead.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.stats import chi2, norm

from watchkeeper.core.drift_report import DriftReport
from watchkeeper.core.policies import DriftPolicy
from watchkeeper.core.signature import missing_name
from watchkeeper.drift.episodes import ObservedState, next_state, open_episode
from watchkeeper.drift.examine import examine
from watchkeeper.drift.statistics.columns import Columns, Feature, missing_feature
from watchkeeper.drift.statistics.reference import Reference, make_reference
from watchkeeper.drift.statistics.streak import newest_streak
from watchkeeper.drift.window import Window
from watchkeeper.ledger.episodes import Episode
from watchkeeper.ledger.observations import Observation

Numbers = NDArray[np.float64]

HISTORY = 10_000  # rows that training reads
MONITORED = 20_000  # rows that the watch examines
BLOCK = 500  # rows of a held-out block of the history, as training cuts it
HELD_OUT = 0.3
LABELLED = 800  # rows since the onset of a drift when a version is trained
RECENT_HELD_OUT = 0.4  # of these rows
CALM = 1000  # rows before a shift
LIMIT = 8000  # rows after a shift: an episode that opens later counts as missed
GRADES = ("L", "M", "H")
KEPT_REPORTS = 24  # reports that a streak is computed from, as in the episode controller


class Process(msgspec.Struct, frozen=True):
    """A stationary process with mean 0 and variance 1: AR(1) of machines that take turns."""

    correlation: float = 0.0  # between two rows of a machine that follow each other
    machines: int = 1
    columns: int = 9
    missing: float = 0.0  # share of the values of every numeric column

    @property
    def width(self) -> int:
        """The number of columns of a sample: values, what makes some missing, and the category."""
        return self.columns * (2 if self.missing else 1) + 1

    def sample(self, rng: np.random.Generator, rows: int) -> Numbers:
        """Return shape (rows, width); the last column makes the category."""
        turns, width = -(-rows // self.machines), self.machines * self.width
        noise = rng.normal(size=(turns, width))
        noise[1:] *= np.sqrt(1 - self.correlation**2)
        values = lfilter([1.0], [1.0, -self.correlation], noise, axis=0)
        return np.asarray(values).reshape(turns * self.machines, -1)[:rows]


class Case(msgspec.Struct, frozen=True):
    """A stream: the process, and what is added from row ``CALM`` on, in standard deviations.

    ``missing`` is added to what makes the values of one column missing.
    """

    process: Process
    mean: float = 0.0
    logit: float = 0.0
    missing: float = 0.0
    retrained: bool = False


CASES = {
    "i.i.d.": Case(Process()),
    "AR 0.9": Case(Process(0.9)),
    "AR 0.99": Case(Process(0.99)),
    "AR 0.9 of 20 machines": Case(Process(0.9, machines=20)),
    "AR 0.9, 100 columns": Case(Process(0.9, columns=100)),
    "AR 0.9 after a retraining": Case(Process(0.9), retrained=True),
    "i.i.d., 10 % missing": Case(Process(missing=0.1)),
    "AR 0.9, 10 % missing": Case(Process(0.9, missing=0.1)),
    "AR 0.9, 60 % missing": Case(Process(0.9, missing=0.6)),
    "AR 0.9, 10 % missing, 100 columns": Case(Process(0.9, columns=100, missing=0.1)),
    "AR 0.9, 10 % missing, after a retraining": Case(Process(0.9, missing=0.1), retrained=True),
    "i.i.d., 10 % missing, then 45 %": Case(Process(missing=0.1), missing=1.16),
    "AR 0.9, 10 % missing, then 90 %": Case(Process(0.9, missing=0.1), missing=2.56),
    "i.i.d., 10 % missing, mean + 1": Case(Process(missing=0.1), mean=1.0),
    "i.i.d., mean + 0.5": Case(Process(), mean=0.5),
    "i.i.d., mean + 1": Case(Process(), mean=1.0),
    "i.i.d., score + 1.4 logit": Case(Process(), logit=1.4),
    "AR 0.9 after a retraining, mean + 1": Case(Process(0.9), mean=1.0, retrained=True),
}


def features(process: Process) -> tuple[Feature, ...]:
    """Return the features of a stream."""
    names, nullable = [f"x{n}" for n in range(process.columns)], process.missing > 0
    numeric = (Feature(name, "numeric", nullable=nullable) for name in names)
    missing = map(missing_feature, names if nullable else [])
    grade = Feature("grade", "categorical", categories=GRADES)
    return (*numeric, grade, *missing, Feature("score", "score"))


def columns_of(process: Process, values: Numbers, logit: float = 0.0) -> Columns:
    """Return the columns of a stream from the values of its process, shape (rows, width)."""
    numbers = values[:, : process.columns].copy()
    columns: Columns = {}
    if process.missing:
        missing = values[:, process.columns : -1] > norm.isf(process.missing)
        numbers[missing] = np.nan
        for n, gone in enumerate(missing.T):
            columns[missing_name(f"x{n}")] = gone.astype(float)
    columns |= {f"x{n}": column for n, column in enumerate(numbers.T)}
    columns["grade"] = np.searchsorted([0.0, 0.84], values[:, -1]).astype(float)
    columns["score"] = 1 / (1 + np.exp(-(np.nan_to_num(numbers[:, :3]).sum(axis=1) + logit)))
    return columns


def held_out(rows: int) -> NDArray[np.bool_]:
    """Return which rows of a history training holds out: whole blocks, evenly spread."""
    blocks = np.arange(rows) // BLOCK
    return np.asarray((blocks * 0.6180339887498949 + 0.37) % 1.0 < HELD_OUT)


def first_reference(case: Case, history: Numbers, policy: DriftPolicy) -> Reference:
    """Return the reference of a version that was trained on a history."""
    columns = columns_of(case.process, history)
    columns["score"] = np.where(held_out(len(history)), columns["score"], np.nan)
    return make_reference(features(case.process), columns, policy.window)


def retrained_reference(
    case: Case, history: Numbers, since: Numbers, rng: np.random.Generator, policy: DriftPolicy
) -> Reference:
    """Return the reference of a version that was trained after a drift: on the rows since then."""
    columns = columns_of(case.process, np.concatenate([history, since]))
    unknown = np.concatenate([~held_out(len(history)), rng.random(len(since)) >= RECENT_HELD_OUT])
    columns["score"][unknown] = np.nan
    return make_reference(features(case.process), columns, policy.window, start=len(history))


def windows(columns: Columns, policy: DriftPolicy) -> Iterator[Window]:
    """Yield the windows of a stream; the record time of a row is its number."""
    rows, every = len(columns["score"]), policy.every
    others = ("grade", "score", *map(missing_name, columns))
    named = {
        name: np.where(np.isnan(values), None, values)  # as the ledger has them
        for name, values in columns.items()
        if name not in others
    }
    grades = np.array(GRADES, dtype=object)[columns["grade"].astype(int)]
    requests: list[Observation] = []
    for start in range(0, rows - every + 1, every):
        part = slice(start, start + every)
        inputs = {name: values[part].tolist() for name, values in named.items()}
        inputs["grade"] = grades[part].tolist()
        outputs = {"score": columns["score"][part].tolist()}
        end = float(start + every)
        requests.append(Observation(str(start), 1, "http", end, 0.0, "OK", every, inputs, outputs))
        requests = requests[-(policy.window // every) :]
        if sum(request.rows for request in requests) == policy.window:
            yield Window(requests, requests[0].time, end)


def episodes(stream: Columns, reference: Reference, policy: DriftPolicy) -> Iterator[float]:
    """Yield the record time of each episode that opens. An episode ends when the data is clean."""
    reports: list[DriftReport] = []
    known: list[Episode] = []
    for window in windows(stream, policy):
        previous = reports[-1] if reports else None
        reports = [*reports, examine(window, reference, policy, previous)][-KEPT_REPORTS:]
        streak = newest_streak(reports)
        if known and known[-1].state != "clean":
            following = next_state(known[-1], ObservedState(window.end, streak), policy)
            known[-1] = following or known[-1]
            continue
        opened = open_episode(known, streak, window.end, policy, model="m", version=1)
        if opened is not None:
            known.append(opened)
            yield window.end


def run(case: Case, seed: int) -> dict[str, float | None]:
    """Return the false episodes of one stream, or the delay after a shift in rows."""
    rng = np.random.default_rng(seed)
    policy = DriftPolicy(minimum_labels=10**9, label_timeout=1e9)
    shifted = bool(case.mean or case.logit or case.missing)
    monitored = CALM + LIMIT if shifted else MONITORED
    values = case.process.sample(rng, HISTORY + LABELLED + monitored)
    history, since, seen = np.split(values, [HISTORY, HISTORY + LABELLED])
    if case.retrained:
        # A first drift of three columns, which the version has been trained for.
        since[:, :3] += 1.0
        seen[:, :3] += 1.0
        reference = retrained_reference(case, history, since, rng, policy)
    else:
        reference = first_reference(case, history, policy)
    if not shifted:
        opened = list(episodes(columns_of(case.process, seen), reference, policy))
        return {"rows": float(len(seen)), "episodes": float(len(opened))}
    last = case.process.columns - 1
    seen[CALM:, last] += case.mean
    if case.missing:
        seen[CALM:, last + case.process.columns] += case.missing
    stream = columns_of(case.process, seen)
    stream["score"][CALM:] = columns_of(case.process, seen[CALM:], case.logit)["score"]
    opened_after = (end for end in episodes(stream, reference, policy) if end > CALM)
    first = next(opened_after, None)
    return {"delay": None if first is None else first - CALM}


def summary(found: list[dict[str, float | None]]) -> str:
    """Return the result of the seeds of one case in words."""
    if "delay" in found[0]:
        delays = [one["delay"] for one in found]
        missed = delays.count(None)
        median = np.median([np.inf if delay is None else delay for delay in delays])
        return f"missed {missed} of {len(found)}, median delay {median:,.0f} rows"
    opened = sum(one["episodes"] or 0.0 for one in found)
    rows = sum(one["rows"] or 0.0 for one in found)
    # The exact interval of a Poisson rate (Garwood 1936).
    low = chi2.ppf(0.025, 2 * opened) / 2 if opened else 0.0
    high = chi2.ppf(0.975, 2 * opened + 2) / 2
    rate, low, high = (count * 10_000 / rows for count in (opened, low, high))
    return (
        f"{rate:.2f} [{low:.2f}, {high:.2f}] episodes per 10,000 rows ({opened:g} in {rows:,.0f})"
    )


def main(arguments: list[str]) -> None:
    """Run the cases that are named, or all."""
    parser = argparse.ArgumentParser(description="Measure false alarms and delays of the watch.")
    parser.add_argument("cases", nargs="*", metavar="case", help=f"of: {', '.join(CASES)}")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="one line for each seed")
    options = parser.parse_args(arguments)
    say: Callable[[str], None] = lambda line: print(line, flush=True)  # noqa: E731
    for name in options.cases or CASES:
        found = []
        for seed in range(options.seeds):
            found.append(run(CASES[name], seed))
            if options.json:
                say(json.dumps({"case": name, "seed": seed, **found[-1]}))
        if not options.json:
            say(f"{name}: {summary(found)}")


if __name__ == "__main__":
    main(sys.argv[1:])
