"""The summary of the demonstration, and the problems that it shows."""

import msgspec

from watchkeeper.core.record import Protocol
from watchkeeper.demo.shares import LEVEL, CanaryStep


class Requests(msgspec.Struct, frozen=True):
    """Numbers of requests of one protocol.

    ``wrong`` answers differ from the offline prediction of their version. ``in_ledger`` are the
    answered requests that the ledger has.
    """

    sent: int
    answered: int
    failed: int
    wrong: int
    in_ledger: int


class Summary(msgspec.Struct, frozen=True):
    """The content of ``summary.json``.

    ``jobs`` is the number of training runs, ``labels`` the number of labels in the ledger.
    ``promoted`` and ``rolled_back`` are versions, in order. ``skipped`` requests were not sent,
    because the machine was too busy. All other integers are counts.
    """

    duration_s: float
    requests: dict[Protocol, Requests]
    steps: list[CanaryStep]
    shares_p_value: float
    episodes: int
    jobs: int
    versions: int
    promoted: list[int]
    rolled_back: list[int]
    labels: int
    skipped: int = 0
    killed: list[str] = []


class CrossChecks(msgspec.Struct, frozen=True):
    """What the summary is compared with.

    ``unknown_records`` are records of answers that no client got. ``expected_steps`` are version,
    percentage and verdict of each canary step.
    """

    labels_accepted: int
    repeated_ids: int
    unknown_records: int
    expected_steps: list[tuple[int, int, str]]


def find_problems(summary: Summary, checks: CrossChecks, *, chaos: bool) -> list[str]:
    """Return what went wrong; an empty list means that the loop has closed.

    With ``chaos`` the gateway's retries move requests away from killed processes and a step may
    start again, so traffic shares and the list of steps are not checked.
    """
    problems = _request_problems(summary, checks)
    expectations = {
        "promoted": (summary.promoted, [1, 2]),
        "rolled back": (summary.rolled_back, [3]),
        "episodes": (summary.episodes, 1),
        "training runs": (summary.jobs, 3),
        "versions": (summary.versions, 3),
    }
    problems += [
        f"{name}: {actual}, expected {expected}"
        for name, (actual, expected) in expectations.items()
        if actual != expected
    ]
    if not summary.labels or summary.labels != checks.labels_accepted:
        problems.append(
            f"{summary.labels} labels in the ledger, {checks.labels_accepted} were accepted"
        )
    return problems if chaos else problems + _step_problems(summary, checks)


def _request_problems(summary: Summary, checks: CrossChecks) -> list[str]:
    problems = []
    for protocol, count in sorted(summary.requests.items()):
        if not count.sent:
            problems.append(f"{protocol}: no request was sent")
        if count.failed or count.wrong:
            problems.append(f"{protocol}: {count.failed} failed and {count.wrong} wrong, not 0")
        if not count.sent == count.answered == count.in_ledger:
            problems.append(
                f"{protocol}: {count.sent} sent, {count.answered} answered, {count.in_ledger} in "
                "the ledger: not the same"
            )
    if checks.repeated_ids:
        problems.append(f"{checks.repeated_ids} prediction ids were used more than once")
    if checks.unknown_records:
        problems.append(
            f"{checks.unknown_records} predictions in the ledger were never answered to a client"
        )
    return problems


def _step_problems(summary: Summary, checks: CrossChecks) -> list[str]:
    problems = []
    steps = [(step.version, step.percent, step.verdict) for step in summary.steps]
    if steps != checks.expected_steps:
        problems.append(f"canary steps {steps}, expected {checks.expected_steps}")
    problems += [
        f"no traffic of both protocols at {step.percent} % of v{step.version}"
        for step in summary.steps
        if not (step.http_requests and step.grpc_requests)
    ]
    if summary.shares_p_value < LEVEL:
        problems.append(
            f"the traffic shares contradict their percentages (p = {summary.shares_p_value:.1g})"
        )
    return problems
