"""What a sender process gets, and what it writes: plan, progress, answers and failures.

All times are in seconds since 1970, all durations in seconds.
"""

from typing import Any

import msgspec

from watchkeeper.core.record import Protocol
from watchkeeper.demo.clients import Target


class SenderPlan(msgspec.Struct, frozen=True):
    """What a sender sends, where, and which files it writes.

    ``rate`` is in requests per second. ``label_delay`` is the time between an answer and its label.
    ``lost_share`` of the labels are never sent. Answers and failures are written if they have a
    file.
    """

    kit: str
    target: Target
    token: str
    progress_file: str
    answers_file: str = ""
    failures_file: str = ""
    rate: float = 50.0
    label_delay: float = 20.0
    lost_share: float = 0.03
    seed: int = 7


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """One answered request, sent at ``time``."""

    protocol: Protocol
    client: str
    time: float
    latency: float
    version: int
    prediction: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """One request without an answer, from ``begin`` to ``end``; ``why`` is the client's error."""

    protocol: Protocol
    client: str
    begin: float
    end: float
    why: str


class RequestCounts(msgspec.Struct):
    """Numbers of requests of one protocol."""

    sent: int = 0
    answered: int = 0
    failed: int = 0


class TrafficProgress(msgspec.Struct):
    """Numbers of requests by protocol, of answers by version, and of labels.

    ``labels`` are accepted, ``labels_never_sent`` are left out on purpose, ``labels_lost`` are
    refused or were dropped from a full queue. ``skipped`` requests were never sent, because this
    process or the system was too slow.
    """

    requests: dict[Protocol, RequestCounts]
    versions: dict[int, int]
    labels: int = 0
    labels_never_sent: int = 0
    labels_lost: int = 0
    skipped: int = 0
    finished: bool = False
    errors: list[str] = []


def add_progress(parts: list[TrafficProgress], *, finished: bool) -> TrafficProgress:
    """Add up the progress of several senders."""
    total = TrafficProgress(
        requests={"http": RequestCounts(), "grpc": RequestCounts()},
        versions={},
        finished=finished,
    )
    for part in parts:
        for protocol, counts in part.requests.items():
            known = total.requests[protocol]
            total.requests[protocol] = RequestCounts(
                sent=known.sent + counts.sent,
                answered=known.answered + counts.answered,
                failed=known.failed + counts.failed,
            )
        for version, number in part.versions.items():
            total.versions[version] = total.versions.get(version, 0) + number
        total.labels += part.labels
        total.labels_never_sent += part.labels_never_sent
        total.labels_lost += part.labels_lost
        total.skipped += part.skipped
        total.errors += part.errors
    return total
