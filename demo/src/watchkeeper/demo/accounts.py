"""The accounts at the end of the story: answers, ledger and status put side by side."""

import asyncio
from typing import Any

from watchkeeper.contracts.prediction_id import request_of
from watchkeeper.demo import checking, ledger
from watchkeeper.demo.chronicle import SLOW_VERSION, Chronicle
from watchkeeper.demo.clients import KITS
from watchkeeper.demo.senders import Traffic
from watchkeeper.demo.shares import p_value
from watchkeeper.demo.summary import Extra, Requests, Summary


async def add_up(
    chronicle: Chronicle,
    traffic: Traffic,
    status: dict[str, Any],
    *,
    steps: tuple[int, ...],
    seconds: float,
    killed: list[str],
) -> tuple[Summary, Extra]:
    """Compare every answer with its offline prediction, count, and sum up.

    ``steps`` are the percentages of the rollout policy; the rollout must be over.

    Raises:
        UnavailableError: a version could not be asked offline.
    """
    database, model = chronicle.ledger, chronicle.model
    progress = traffic.progress()
    answers = await asyncio.to_thread(
        checking.read_answers, [traffic.answers_file(kit) for kit in KITS]
    )
    wrong = await checking.wrong_answers(
        answers, model, status["endpoints"]["mlflow"], traffic.folder
    )
    await chronicle.read()
    kept = ledger.kept(database, model)
    given = {
        protocol: [request_of(a.prediction) for a in answers if a.protocol == protocol]
        for protocol in progress.requests
    }
    everything = [request for requests in given.values() for request in requests]
    counted = ledger.steps(database, model, chronicle.events)
    summary = Summary(
        duration_s=round(seconds, 1),
        requests={
            protocol: Requests(
                sent=counts.sent,
                answered=counts.answered,
                failed=counts.failed,
                wrong=wrong[protocol],
                in_ledger=len(kept.answered[protocol] & set(given[protocol])),
            )
            for protocol, counts in progress.requests.items()
        },
        steps=counted,
        shares_p_value=p_value(counted),
        episodes=len(chronicle.episodes()),
        jobs=sum(len(m["runs"]) for m in status["models"] if m["name"] == model),
        versions=len(chronicle.versions("gate-passed")),
        promoted=chronicle.versions("promoted"),
        rolled_back=chronicle.versions("rolled-back"),
        labels=ledger.count_labels(database, model),
        killed=killed,
    )
    extra = Extra(
        labels_accepted=progress.labels,
        repeated_ids=len(everything) - len(set(everything)),
        strange_records=len(set().union(*kept.answered.values()) - set(everything)),
        steps_expected=[
            *((2, percent, "pass") for percent in steps),
            (SLOW_VERSION, steps[0], "fail"),
        ],
    )
    return summary, extra
