"""The summary of the story, and whether the loop really closed."""

import msgspec

from watchkeeper.demo.shares import LEVEL, Step


class Requests(msgspec.Struct, frozen=True):
    """What became of the requests of one protocol.

    ``wrong`` answers differ from what their version predicts offline for the row; ``in_ledger``
    counts the answered ones that the ledger holds.
    """

    sent: int
    answered: int
    failed: int
    wrong: int
    in_ledger: int


class Summary(msgspec.Struct, frozen=True):
    """``summary.json``. ``jobs`` counts training runs, ``labels`` those in the ledger; the other
    numbers of ``promoted`` and ``rolled_back`` are versions, in order.
    """

    duration_s: float
    requests: dict[str, Requests]
    steps: list[Step]
    shares_p_value: float
    episodes: int
    jobs: int
    versions: int
    promoted: list[int]
    rolled_back: list[int]
    labels: int
    killed: list[str] = []


class Extra(msgspec.Struct, frozen=True):
    """What the verdict needs beside the summary."""

    labels_accepted: int
    repeated_ids: int
    strange_records: int  # in the ledger, but nobody was answered with them
    steps_expected: list[tuple[int, int, str]]  # version, percent, verdict


def problems(summary: Summary, extra: Extra, *, chaos: bool) -> list[str]:
    """Say what keeps the loop from being closed; nothing when it is.

    Under chaos the gateway's retries move requests away from what was killed, and a step may
    have to begin again, so that shares and the list of steps may differ then.
    """
    found = _requests(summary, extra)
    wanted = {
        "promoted": (summary.promoted, [1, 2]),
        "rolled back": (summary.rolled_back, [3]),
        "episodes": (summary.episodes, 1),
        "training runs": (summary.jobs, 3),
        "versions": (summary.versions, 3),
    }
    found += [
        f"{name}: {got}, not {expected}"
        for name, (got, expected) in wanted.items()
        if got != expected
    ]
    if not summary.labels or summary.labels != extra.labels_accepted:
        found.append(
            f"{summary.labels} labels in the ledger, {extra.labels_accepted} were accepted"
        )
    return found if chaos else found + _steps(summary, extra)


def _requests(summary: Summary, extra: Extra) -> list[str]:
    found = []
    for protocol, count in sorted(summary.requests.items()):
        if not count.sent:
            found.append(f"{protocol}: no request was sent")
        if count.failed or count.wrong:
            found.append(f"{protocol}: {count.failed} failed and {count.wrong} wrong, not 0")
        if not count.sent == count.answered == count.in_ledger:
            found.append(
                f"{protocol}: {count.sent} sent, {count.answered} answered, {count.in_ledger} in "
                "the ledger: not the same"
            )
    if extra.repeated_ids:
        found.append(f"{extra.repeated_ids} prediction ids were given out more than once")
    if extra.strange_records:
        found.append(f"{extra.strange_records} predictions in the ledger were never answered")
    return found


def _steps(summary: Summary, extra: Extra) -> list[str]:
    found = []
    steps = [(step.version, step.percent, step.verdict) for step in summary.steps]
    if steps != extra.steps_expected:
        found.append(f"steps {steps}, not {extra.steps_expected}")
    found += [
        f"no traffic of both protocols at {step.percent} % of v{step.version}"
        for step in summary.steps
        if not (step.http_requests and step.grpc_requests)
    ]
    if summary.shares_p_value < LEVEL:
        found.append(
            f"the traffic shares contradict their percentages (p = {summary.shares_p_value:.1g})"
        )
    return found
