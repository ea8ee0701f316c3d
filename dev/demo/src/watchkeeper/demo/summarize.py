"""Compare answers, ledger and status at the end of the demonstration."""

import asyncio
from typing import Any

from watchkeeper.core.events import GatePassed, Promoted, RolledBack
from watchkeeper.core.prediction_id import request_of
from watchkeeper.demo.clients import KITS
from watchkeeper.demo.events import SLOW_VERSION, EventLog
from watchkeeper.demo.offline_comparison import count_wrong_answers, read_answers
from watchkeeper.demo.senders import Traffic
from watchkeeper.demo.shares import count_steps, p_value
from watchkeeper.demo.summary import CrossChecks, Requests, Summary
from watchkeeper.ledger.counts import count_labels, stored_requests


async def summarize(
    log: EventLog,
    traffic: Traffic,
    status: dict[str, Any],
    *,
    steps: tuple[int, ...],
    seconds: float,
    killed: list[str],
) -> tuple[Summary, CrossChecks]:
    """Compare every answer with its offline prediction, and count.

    Args:
        log: the events.
        traffic: the senders, which have ended.
        status: the output of ``watchkeeper status --json``.
        steps: the percentages of the rollout policy.
        seconds: the duration of the demonstration.
        killed: the names of processes that were killed on purpose.

    Raises:
        SystemUnavailableError: the offline prediction failed.
    """
    ledger, model = log.ledger, log.model
    progress = traffic.progress()
    answers = await asyncio.to_thread(read_answers, [traffic.answers_file(kit) for kit in KITS])
    mlflow = status["endpoints"]["mlflow"]
    wrong = await count_wrong_answers(answers, model, mlflow, traffic.folder)
    await log.read()
    stored = stored_requests(ledger, model)
    answered = {
        protocol: [request_of(a.prediction) for a in answers if a.protocol == protocol]
        for protocol in progress.requests
    }
    all_answered = [request for requests in answered.values() for request in requests]
    counted = count_steps(ledger, model, log.events)
    summary = Summary(
        duration_s=round(seconds, 1),
        requests={
            protocol: Requests(
                sent=counts.sent,
                answered=counts.answered,
                failed=counts.failed,
                wrong=wrong[protocol],
                in_ledger=len(stored.answered[protocol] & set(answered[protocol])),
            )
            for protocol, counts in progress.requests.items()
        },
        steps=counted,
        shares_p_value=p_value(counted),
        episodes=len(log.episodes()),
        jobs=sum(len(m["runs"]) for m in status["models"] if m["name"] == model),
        versions=len(log.versions(GatePassed)),
        promoted=log.versions(Promoted),
        rolled_back=log.versions(RolledBack),
        labels=count_labels(ledger, model),
        skipped=progress.skipped,
        killed=killed,
    )
    checks = CrossChecks(
        labels_accepted=progress.labels,
        repeated_ids=len(all_answered) - len(set(all_answered)),
        unknown_records=len(set().union(*stored.answered.values()) - set(all_answered)),
        expected_steps=[
            *((2, percent, "pass") for percent in steps),
            (SLOW_VERSION, steps[0], "fail"),
        ],
    )
    return summary, checks
