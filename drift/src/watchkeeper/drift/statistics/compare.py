"""One window against the reference: a test and an effect size for each feature, and the verdict.

A feature has drifted when its test rejects after correction over all that are tested *and* its
effect is at least ``minimum_effect`` and beyond the null. This module needs alibi-detect, whose
import takes seconds and hundreds of MiB: only the process that watches imports it.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
from alibi_detect.cd import TabularDrift

from watchkeeper.contracts.policies import DriftPolicy
from watchkeeper.contracts.version import Statistics
from watchkeeper.drift.statistics.columns import Columns, Feature, Values
from watchkeeper.drift.statistics.effects import distance, z_score
from watchkeeper.drift.statistics.reference import Reference

Summary = dict[str, float]


class FeatureReport(msgspec.Struct, frozen=True):
    """What one feature shows in one window.

    ``p_value`` is corrected (Bonferroni), ``statistic`` the test's own, ``null_threshold`` what
    the effect must exceed, ``z`` the window's z-score. ``left_out`` says why a feature has no
    part in the verdict.
    """

    name: str
    kind: Literal["numeric", "categorical", "score"]
    test: Literal["ks", "chi2"]
    statistic: float
    p_value: float
    effect_size: float
    null_threshold: float
    z: float | None
    baseline: Summary
    window: Summary
    drifted: bool
    left_out: str = ""


def compare(
    reference: Reference, window: Columns, policy: DriftPolicy, broken: dict[str, str]
) -> list[FeatureReport]:
    """Compare every feature of a window, columns of shape (rows,), with the reference."""
    tested = [feature for feature in reference.features if not _left_out(feature, broken)]
    results = _test(tested, reference.columns, window, policy.alpha)
    reports = []
    for feature in reference.features:
        name = feature.name
        left_out = _left_out(feature, broken)
        statistic, p_value = results.get(name, (0.0, 1.0))
        effect = distance(feature.kind, reference.columns[name], window[name])
        threshold = max(policy.minimum_effect, reference.null.threshold[name])
        before = _summary(feature, reference.columns[name], reference.baseline.get(name))
        now = _summary(feature, window[name])
        z = None
        if feature.kind != "categorical":
            z = z_score(now["mean"], before["mean"], before["std"])
        reports.append(
            FeatureReport(
                name=name,
                kind=feature.kind,
                test="chi2" if feature.kind == "categorical" else "ks",
                statistic=statistic,
                p_value=p_value,
                effect_size=effect,
                null_threshold=threshold,
                z=z,
                baseline=before,
                window=now,
                drifted=not left_out and p_value < policy.alpha and effect >= threshold,
                left_out=left_out,
            )
        )
    return reports


def _left_out(feature: Feature, broken: dict[str, str]) -> str:
    if feature.name in broken:
        return f"broken sensor: {broken[feature.name]}"
    if feature.kind == "score" and broken:
        return f"scores depend on broken sensors: {', '.join(sorted(broken))}"
    return ""


def _test(
    features: Sequence[Feature], reference: Columns, window: Columns, alpha: float
) -> dict[str, tuple[float, float]]:
    """Return statistic and corrected p-value of alibi-detect's TabularDrift, by feature."""
    rows = _matrix(features, window)
    if not features or not len(rows):
        return {}
    categorical = {n: None for n, f in enumerate(features) if f.kind == "categorical"}
    detector = TabularDrift(
        _matrix(features, reference), p_val=alpha, categories_per_feature=categorical
    )
    found = detector.predict(rows)["data"]
    p_values = np.minimum(np.asarray(found["p_val"], dtype=float) * len(features), 1.0)
    return {
        feature.name: (float(found["distance"][n]), float(p_values[n]))
        for n, feature in enumerate(features)
    }


def _matrix(features: Sequence[Feature], columns: Columns) -> Values:
    """Put whole rows side by side; the few that miss a value are left to the sensors' check."""
    if not features:
        return np.empty((0, 0))
    rows = np.column_stack([columns[feature.name] for feature in features])
    whole: Values = rows[~np.isnan(rows).any(axis=1)]
    return whole


def _summary(feature: Feature, values: Values, published: Statistics | None = None) -> Summary:
    values = values[~np.isnan(values)]
    if feature.kind == "categorical":
        names = (*feature.categories, "unknown")
        shares = [float((values == n).mean()) if len(values) else 0.0 for n in range(len(names))]
        return {name: share for name, share in zip(names, shares, strict=True) if share}
    if published is not None:
        return {"mean": published.mean, "std": published.std}
    if not len(values):
        return {"mean": 0.0, "std": 0.0}
    return {"mean": float(values.mean()), "std": float(values.std())}
