"""Compares the answers of a load with the offline predictions and with the ledger."""

from collections import Counter

import msgspec
from installation import Installation
from kube import wait_until
from load import Load
from offline import wrong_answers

from watchkeeper.core.prediction_id import request_of
from watchkeeper.demo.messages import Answer
from watchkeeper.ledger.counts import count_labelled_rows, stored_requests

SHIPPED_SECONDS = 60.0
# The share of the requests that were not sent in time. A busy machine delays them; more than this
# is a gateway or a server that did not answer for a while.
MAX_SKIPPED = 0.2


class LedgerComparison(msgspec.Struct, frozen=True):
    """Differences between answers and ledger.

    Attributes:
        wrong: answers that differ from the offline prediction.
        repeated: ids that two requests have.
        missing: ids of answered requests that the ledger does not have.
        unknown: ids in the ledger that no client has received.
        extra_labels: labels in the ledger minus accepted labels.
    """

    wrong: list[Answer]
    repeated: set[str]
    missing: set[str]
    unknown: set[str]
    extra_labels: int


def compare(installation: Installation, load: Load) -> LedgerComparison:
    """Compare the answers and labels of a stopped load with offline predictions and ledger.

    It waits up to a minute until the sidecars have shipped all records.
    """
    answers, accepted = load.answers(), load.progress().labels
    ids = Counter(request_of(answer.prediction) for answer in answers)

    def shipped() -> bool:
        return ids.keys() <= _stored(installation, load) and _labels(installation, load) >= accepted

    try:
        wait_until("all answers and labels are in the ledger", shipped, SHIPPED_SECONDS)
    except AssertionError as error:
        print(error)  # the result below has the details
    stored = _stored(installation, load)
    return LedgerComparison(
        wrong=wrong_answers(answers, load.model, installation.training),
        repeated={request for request, times in ids.items() if times > 1},
        missing=ids.keys() - stored,
        unknown=stored - ids.keys(),
        extra_labels=_labels(installation, load) - accepted,
    )


def check_exact(installation: Installation, load: Load) -> None:
    """Check that no request of a stopped load has failed, and that there are no differences."""
    progress = load.progress()
    for protocol, counts in progress.requests.items():
        assert counts.sent == counts.answered > 0, (protocol, counts, progress.errors)
    sent = sum(counts.sent for counts in progress.requests.values())
    assert progress.skipped <= MAX_SKIPPED * sent, f"{progress.skipped} skipped, {sent} sent"
    assert progress.labels > 0
    assert progress.labels_lost == 0
    assert compare(installation, load) == LedgerComparison([], set(), set(), set(), 0)


def _stored(installation: Installation, load: Load) -> set[str]:
    """Return the ids of all requests in the ledger of the time of a load, refused ones too."""
    stored = stored_requests(
        installation.ledger, load.model, since=load.started, until=load.stopped
    )
    return set().union(*stored.answered.values(), stored.refused)


def _labels(installation: Installation, load: Load) -> int:
    """Count the labels in the ledger of the requests since the start of a load."""
    labels, _ = count_labelled_rows(installation.ledger, load.model, since=load.started)
    return labels
