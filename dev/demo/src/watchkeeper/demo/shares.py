"""Canary steps with their requests, and one test of all traffic shares together."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec
from scipy.stats import binomtest, combine_pvalues

from watchkeeper.core.events import Event, StepFinished
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.counts import count_requests

LEVEL: Final = 1e-6


class CanaryStep(msgspec.Struct, frozen=True):
    """One canary step, with the requests of the time in which its weights were confirmed.

    ``http_requests`` are all requests over HTTP, ``http_canary`` those that the canary got.
    """

    version: int
    percent: int
    http_requests: int
    http_canary: int
    grpc_requests: int
    grpc_canary: int
    verdict: str
    reason: str


def count_steps(ledger: Ledger, model: str, events: Iterable[Event]) -> list[CanaryStep]:
    """Return the canary steps among ``events``, with their requests from the ledger."""
    steps = []
    for event in events:
        step = event.details
        if not isinstance(step, StepFinished):
            continue
        requests: Counter[str] = Counter()
        canary: Counter[str] = Counter()
        counts = count_requests(ledger, model, since=step.since, until=step.until)
        for (protocol, version), number in counts.items():
            requests[protocol] += number
            if version == event.version:
                canary[protocol] += number
        steps.append(
            CanaryStep(
                version=event.version or 0,
                percent=step.percent,
                http_requests=requests["http"],
                http_canary=canary["http"],
                grpc_requests=requests["grpc"],
                grpc_canary=canary["grpc"],
                verdict=step.verdict,
                reason=event.reason,
            )
        )
    return steps


def p_value(steps: list[CanaryStep]) -> float:
    """Return the p-value of "each request went to the canary with its step's percentage".

    Exact two-sided binomial tests, one for each step and protocol, are combined by Fisher's method.
    With counts, that method is conservative. Without requests the result is 1.0.
    """
    single = [
        float(binomtest(canary, requests, step.percent / 100).pvalue)
        for step in steps
        for requests, canary in (
            (step.http_requests, step.http_canary),
            (step.grpc_requests, step.grpc_canary),
        )
        if requests
    ]
    if not single:
        return 1.0
    if min(single) == 0.0:  # Fisher's method takes logarithms
        return 0.0
    return float(combine_pvalues(single, method="fisher").pvalue)
