"""When a block of rows counts: the labels of failures may come earlier or later than others.

Blocks are judged in the order of their rows, and each one as a whole:

1. As soon as 90 % of the rows of a block have a label, the block is judged. A row without a label
   counts as one without any error. So labels that are missing cannot raise an alarm, whatever they
   depend on.
2. After ``concept_label_delay`` no more labels are expected. A block of which at least
   ``concept_label_share`` is labelled is judged by these rows. With a share below 90 %, this
   assumes that whether a row is labelled does not depend on its error.
3. Any other block is skipped then.

A block that waits holds up the blocks after it. Otherwise blocks with many early labels, such as
those of failures, would be judged first.
"""

from typing import Final, Literal

from watchkeeper.core.estimates import Numbers
from watchkeeper.core.policies import DriftPolicy

COMPLETE_SHARE: Final = 0.9

Step = Literal["wait", "judge", "skip"]


def next_step(rows: int, labelled: int, age: float, policy: DriftPolicy) -> Step:
    """Return what to do with a block.

    Args:
        rows: the number of its rows.
        labelled: how many of them have a label.
        age: seconds from its last row to the newest row of the version, in record time.
        policy: the policy in force.
    """
    if labelled >= COMPLETE_SHARE * rows:
        return "judge"
    if age < policy.concept_label_delay:
        return "wait"
    return "judge" if labelled >= policy.concept_label_share * rows else "skip"


def block_loss(losses: Numbers, rows: int) -> float:
    """Return the mean loss of a block that is judged.

    Args:
        losses: the losses of its labelled rows, of shape (labelled,).
        rows: the number of all its rows.
    """
    complete = len(losses) >= COMPLETE_SHARE * rows
    return float(losses.sum()) / (rows if complete else len(losses))
