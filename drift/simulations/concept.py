"""Measure false alarms and detection delays of the concept watch on simulated streams.

    drift/.venv/bin/python drift/simulations/concept.py                 # all cases
    drift/.venv/bin/python drift/simulations/concept.py --seeds 5 "i.i.d."

A stream has rows of a calibrated binary head, one a second, of which 6 % are positive. The gate
measures the loss on the held-out rows of a history of 10,000 rows of the same process, in blocks of
500 rows by the rule of training, or on rows that a hash has chosen, as of recent rows. Labels
arrive later: after a delay that may depend on the label, or never. Blocks are judged by the rules
of the watch, at the first moment at which they can be. Nothing is stored: no ledger, no registry,
no files. A line of output is one case.
"""

import argparse
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.stats import chi2, norm

from watchkeeper.core.block_means import block_length, mean_of_dependent
from watchkeeper.core.gate_report import HeldOutLoss
from watchkeeper.core.head import Head
from watchkeeper.core.policies import DriftPolicy, override
from watchkeeper.core.tasks import task_of
from watchkeeper.core.tasks.base import Labelled
from watchkeeper.drift.concept.baseline import limit_of
from watchkeeper.drift.concept.completeness import COMPLETE_SHARE, block_loss, next_step
from watchkeeper.drift.concept.detector import detect

Numbers = NDArray[np.float64]

HISTORY = 10_000  # rows
BLOCK_ROWS = 500  # of the history, on one side of the split
HELD_OUT, RECENT_HELD_OUT = 0.3, 0.4  # shares of the rows that the gate measures
MONITORED = 100_000  # rows without a change
CALM = 5000  # rows before a change
LIMIT = 20_000  # rows after a change: an alarm later than that counts as missed
TASK = task_of(Head("p", "p.skops", "predict_proba", label="failed"))
# The logit of a row's probability is MEAN + SPREAD times a standard normal value: 6 % positives.
MEAN, SPREAD = -4.2, 2.0


class Case(msgspec.Struct, frozen=True):
    """A stream.

    ``correlation`` is that of neighbouring rows: of what makes them difficult, and of what decides
    their labels. ``delays`` are the mean delays of the labels 0 and 1 in seconds, ``never`` the
    shares of them that do not arrive. From row ``CALM`` on, ``flipped`` is the share of wrong
    labels and ``moved`` is added to the logit of the true probability. ``scattered`` says that a
    hash has chosen the held-out rows one by one.
    """

    correlation: float = 0.0
    delays: tuple[float, float] = (0.0, 0.0)
    never: tuple[float, float] = (0.0, 0.0)
    flipped: float = 0.0
    moved: float = 0.0
    scattered: bool = False


CASES = {
    "i.i.d.": Case(),
    "AR 0.9": Case(0.9),
    "AR 0.99": Case(0.99),
    "AR 0.9, held out by a hash": Case(0.9, scattered=True),
    "AR 0.99, held out by a hash": Case(0.99, scattered=True),
    "i.i.d., labels 1 early": Case(delays=(3000.0, 100.0)),
    "i.i.d., labels 1 late": Case(delays=(100.0, 3000.0)),
    "i.i.d., labels 1 early, 8 % of 0 never": Case(delays=(3000.0, 100.0), never=(0.08, 0.0)),
    "i.i.d., labels 1 early, 30 % of 0 never": Case(delays=(3000.0, 100.0), never=(0.3, 0.0)),
    "AR 0.9, labels 1 early": Case(0.9, delays=(3000.0, 100.0)),
    "i.i.d., 5 % of labels flipped": Case(flipped=0.05),
    "i.i.d., 10 % of labels flipped": Case(flipped=0.1),
    "i.i.d., 20 % of labels flipped": Case(flipped=0.2),
    "AR 0.9, 10 % of labels flipped": Case(0.9, flipped=0.1),
    "i.i.d., threshold moved by 1 logit": Case(moved=1.0),
    "i.i.d., threshold moved by 2 logits": Case(moved=2.0),
    "i.i.d., 10 % flipped, labels 1 early": Case(delays=(3000.0, 100.0), flipped=0.1),
}


class Rows(msgspec.Struct, frozen=True):
    """Labels and probabilities, and when each label arrives; infinite if it never does."""

    target: Numbers
    score: Numbers
    arrival: Numbers

    def losses(self, chosen: NDArray[Any]) -> Numbers:
        """Return the losses of some rows."""
        return TASK.losses(Labelled(self.target[chosen], {"p": self.score[chosen]}), 1.0)


def simulated(case: Case, rng: np.random.Generator, rows: int, change: int) -> Rows:
    """Return rows of a stream; from row ``change`` on the concept is another one."""
    noise = rng.normal(size=(2, rows))
    noise[:, 1:] *= np.sqrt(1 - case.correlation**2)
    difficulty, chance = lfilter([1.0], [1.0, -case.correlation], noise, axis=1)
    logit = MEAN + SPREAD * difficulty
    changed = np.arange(rows) >= change
    truth = 1 / (1 + np.exp(-(logit + case.moved * changed)))
    target = (norm.cdf(chance) < truth).astype(np.float64)
    wrong = changed & (rng.random(rows) < case.flipped)
    target = np.where(wrong, 1 - target, target)
    positive = target.astype(int)
    delay = rng.exponential(1.0, rows) * np.array(case.delays)[positive]
    never = rng.random(rows) < np.array(case.never)[positive]
    arrival = np.where(never, np.inf, np.arange(rows) + delay)
    return Rows(target, 1 / (1 + np.exp(-logit)), arrival)


def held_out(case: Case, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return the places of the held-out rows of a history, by the rules of training/split.py."""
    if case.scattered:
        return np.flatnonzero(rng.random(HISTORY) < RECENT_HELD_OUT)
    blocks = np.arange(HISTORY) // BLOCK_ROWS
    return np.flatnonzero((blocks * 0.6180339887498949 + 0.37) % 1.0 < HELD_OUT)


def judged(rows: Rows, size: int, policy: DriftPolicy) -> Iterator[tuple[float, float]]:
    """Yield (when it is judged, mean loss) of each block of ``size`` rows that is judged."""
    now = 0.0
    for start in range(0, len(rows.target) - size + 1, size):
        places = np.arange(start, start + size)
        end = float(places[-1])
        arrival = np.sort(rows.arrival[places])
        complete = arrival[int(np.ceil(COMPLETE_SHARE * size)) - 1]
        now = max(now, end, min(complete, end + policy.concept_label_delay))
        known = places[rows.arrival[places] <= now]
        if next_step(size, len(known), now - end, policy) == "judge":
            yield now, block_loss(rows.losses(known), size)


def run(case: Case, seed: int, policy: DriftPolicy, monitored: int = MONITORED) -> dict[str, Any]:
    """Return the alarms of one stream, or the delay after a change in seconds."""
    rng = np.random.default_rng(seed)
    changes = bool(case.flipped or case.moved)
    count = CALM + LIMIT if changes else monitored
    history = simulated(case, rng, HISTORY, HISTORY)
    held = held_out(case, rng)
    rows = simulated(case, rng, count, CALM if changes else count)
    losses = history.losses(held)
    length = block_length(losses, policy.concept_block)
    if length is None:
        return {"available": False}
    size = int(np.ceil(length * HISTORY / len(held)))
    baseline = HeldOutLoss(("history",), len(held), size, mean_of_dependent(losses))
    found = list(judged(rows, size, policy))
    times = np.array([now for now, _ in found])
    means = np.array([loss for _, loss in found])
    limit = limit_of(baseline, policy)
    run_length = policy.concept_alarm_rows / size
    if not changes:
        alarms = detect(means, limit, run_length).alarms
        return {"rows": count, "judged": len(means) * size, "alarms": alarms}
    # The state after each block tells when the alarm was raised.
    after = times >= CALM
    detection = detect(means, limit, run_length)
    if detection.drifted and detection.alarms == 1 and after[detection.found]:
        onset = detection.first * size - CALM
        return {"delay": times[detection.found] - CALM, "onset": onset}
    return {"delay": np.inf, "onset": np.nan}


def summary(found: list[dict[str, Any]]) -> str:
    """Return the result of the seeds of one case in words."""
    without = [one for one in found if "available" in one]
    found = [one for one in found if "available" not in one]
    if without:
        rest = f"{summary(found)}; " if found else ""
        return f"{rest}not available in {len(without)} more"
    if "delay" in found[0]:
        delays = np.array([one["delay"] for one in found])
        missed = int(np.isinf(delays).sum())
        onset = np.nanmedian([one["onset"] for one in found]) if missed < len(found) else np.nan
        return (
            f"missed {missed} of {len(found)}, median delay {np.median(delays):,.0f} rows, "
            f"median error of the onset {onset:,.0f} rows"
        )
    alarms, rows = (sum(one[name] for one in found) for name in ("alarms", "rows"))
    # The exact interval of a Poisson rate (Garwood 1936).
    low = chi2.ppf(0.025, 2 * alarms) / 2 if alarms else 0.0
    high = chi2.ppf(0.975, 2 * alarms + 2) / 2
    rate, low, high = (value * 1_000_000 / rows for value in (alarms, low, high))
    judged_share = sum(one["judged"] for one in found) / rows
    streams = sum(one["alarms"] > 0 for one in found)
    return (
        f"{rate:.2f} [{low:.2f}, {high:.2f}] alarms per 1,000,000 rows ({alarms} in {rows:,}), "
        f"in {streams} of {len(found)} streams, {judged_share:.0%} of the rows judged"
    )


def main(arguments: list[str]) -> None:
    """Run the cases that are named, or all."""
    parser = argparse.ArgumentParser(description="Measure the concept watch.")
    parser.add_argument("cases", nargs="*", metavar="case", help=f"of: {', '.join(CASES)}")
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--policy", type=msgspec.json.decode, default={}, help="JSON: other values")
    options = parser.parse_args(arguments)
    policy = override(DriftPolicy(concept_label_delay=20_000.0), options.policy)
    for name in options.cases or CASES:
        found = [run(CASES[name], seed, policy) for seed in range(options.seeds)]
        print(f"{name}: {summary(found)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
