"""What live losses are compared with: the losses that the gate of a version measured."""

from pathlib import Path
from typing import Final

import msgspec

from watchkeeper.core.gate_report import HeldOutLoss, read_report
from watchkeeper.core.policies import DriftPolicy
from watchkeeper.core.version import GATE_REPORT, Manifest

LEAST_EFFECT: Final = 0.005  # of a mean loss, which is from 0 to 1
NOT_MEASURED: Final = (
    "the gate measured no loss: an earlier release has trained the version, or it had too few "
    "held-out rows with a label; the next training run measures it again"
)


def read_baselines(folder: Path, manifest: Manifest) -> dict[str, HeldOutLoss | str]:
    """Return the held-out loss of each truth of a version, or why there is none.

    Args:
        folder: the folder of the version.
        manifest: its verified manifest. A version without a report has measured no loss.

    Raises:
        OSError: the report cannot be read; a later call may succeed.
    """
    measured: dict[str, HeldOutLoss] = {}
    missing = NOT_MEASURED
    try:
        if GATE_REPORT in manifest.files:
            measured = read_report(folder).losses
    except msgspec.MsgspecError as error:
        missing = f"the report of the gate is not valid ({folder / GATE_REPORT}): {error}"
    found: dict[str, HeldOutLoss | str] = {}
    for name in (truth.name for truth in manifest.truths):
        loss = measured.get(name)
        if loss is None or loss.mean.high is None:
            found[name] = missing
        else:
            found[name] = loss.unusable or loss
    return found


def limit_of(baseline: HeldOutLoss, policy: DriftPolicy) -> float:
    """Return the largest mean loss that is no drift.

    It is the upper end of the gate's interval, plus the smallest effect that matters. A share of
    the baseline is an effect of the same weight for each unit and each quality. For a head that
    hardly errs a share is less than a few labels can show, so the effect is at least
    :data:`LEAST_EFFECT`.
    """
    measured = baseline.mean.value or 0.0
    effect = max(LEAST_EFFECT, policy.concept_effect * measured)
    return (baseline.mean.high or measured) + effect
