"""Do the traffic shares of all steps together contradict their percentages? One test over all."""

from typing import Final

import msgspec
from scipy.stats import binomtest, combine_pvalues

LEVEL: Final = 1e-6


class Step(msgspec.Struct, frozen=True):
    """One traffic step of a rollout, with the requests counted while its weight was confirmed."""

    version: int
    percent: int
    http_requests: int
    http_canary: int
    grpc_requests: int
    grpc_canary: int
    verdict: str
    reason: str


def p_value(steps: list[Step]) -> float:
    """Return the p-value of "each request went to the canary by its step's percentage".

    Exact two-sided binomial tests, one for each step and protocol, combined by Fisher's method,
    which errs to the safe side with counts. 1.0 when there was nothing to count.
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
    if min(single) == 0.0:
        return 0.0
    return float(combine_pvalues(single, method="fisher").pvalue)
