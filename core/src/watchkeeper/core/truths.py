"""The truths of a version: what turns out to be true for its rows, one for each supervised head."""

from collections.abc import Iterable

import msgspec

from watchkeeper.core.head import Head
from watchkeeper.core.tasks import task_of
from watchkeeper.core.tasks.base import Task

MAX_NAME_LENGTH = 63  # of a truth, a part of a key in the ledger


class Truth(msgspec.Struct, frozen=True):
    """What turns out to be true for a row, in one respect.

    Attributes:
        task: The task of the head that predicts it.
        stored_as: The names under which its labels are in the ledger.
    """

    task: Task
    stored_as: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name under which clients send its labels; empty in versions older than the name."""
        return self.task.head.label


def truths_of(heads: Iterable[Head], main: Head) -> tuple[Truth, ...]:
    """Return the truths of the heads that have one; none if the ``main`` head has none.

    The truth of the ``main`` head is the first one. Labels without a name belong to it: those of
    clients that name none, and those that the ledger has from releases before the names.

    Args:
        heads: All heads of a version.
        main: One of them.
    """
    task = task_of(main)
    if not task.has_labels:
        return ()
    others = (head for head in heads if head.label and head != main)
    return (
        Truth(task, tuple(dict.fromkeys((main.label, "")))),
        *(Truth(task_of(head), (head.label,)) for head in others),
    )
