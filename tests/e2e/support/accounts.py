"""The accounts of a load: every answer as predicted offline, and in the ledger exactly once."""

from collections import Counter

import msgspec
from installation import Installation
from kube import until
from load import Load
from offline import wrong_answers
from sqlalchemy import func, select

from watchkeeper.contracts.prediction_id import request_of
from watchkeeper.demo.sender import Answer
from watchkeeper.ledger import Ledger
from watchkeeper.ledger import tables as t

SHIPPED_SECONDS = 60.0
SKIPPED = 0.01  # the share of requests that a busy machine may be too late to send


class Accounts(msgspec.Struct, frozen=True):
    """What does not agree: answers unlike the offline prediction, requests answered ``twice`` by
    one id, ``missing`` in the ledger, or there but never answered (``strange``), and how many
    labels the ledger has beside those that were accepted.
    """

    wrong: list[Answer]
    twice: set[str]
    missing: set[str]
    strange: set[str]
    labels: int


def add_up(installation: Installation, load: Load) -> Accounts:
    """Compare answers and labels of a load that was stopped with offline prediction and ledger."""
    answers, accepted = load.answers(), load.progress().labels
    given = Counter(request_of(answer.prediction) for answer in answers)
    ledger = installation.ledger

    def shipped() -> bool:
        return given.keys() <= _kept(ledger, load) and _labels(ledger, given) >= accepted

    try:
        until("all answers and labels are in the ledger", shipped, SHIPPED_SECONDS)
    except AssertionError as error:
        print(error)  # which ones are not is told below
    kept = _kept(ledger, load)
    return Accounts(
        wrong=wrong_answers(answers, load.model, installation.training),
        twice={request for request, times in given.items() if times > 1},
        missing=given.keys() - kept,
        strange=kept - given.keys(),
        labels=_labels(ledger, given) - accepted,
    )


def check_accounts(installation: Installation, load: Load) -> None:
    """Make sure that no request has failed, and that all accounts agree."""
    progress = load.progress()
    for protocol, counts in progress.requests.items():
        assert counts.sent == counts.answered > 0, (protocol, counts, progress.errors)
    sent = sum(counts.sent for counts in progress.requests.values())
    assert progress.skipped <= SKIPPED * sent, "the load was not steady"
    assert progress.labels > 0
    assert progress.labels_lost == 0
    assert add_up(installation, load) == Accounts([], set(), set(), set(), 0)


def _kept(ledger: Ledger, load: Load) -> set[str]:
    """Return the requests in the ledger, answered or not, of the time of a load."""
    p = t.predictions.c
    query = select(p.id).where(p.model == load.model, p.time >= load.began, p.time <= load.ended)
    with ledger.read() as connection:
        return set(connection.execute(query).scalars())


def _labels(ledger: Ledger, given: Counter[str]) -> int:
    label = t.labels.c
    query = select(label.prediction, func.count()).group_by(label.prediction)
    with ledger.read() as connection:
        return sum(count for one, count in connection.execute(query) if one in given)
