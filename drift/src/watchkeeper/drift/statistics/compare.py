"""Compare one window with the reference: a test, an effect size and a decision for each feature.

This module imports alibi-detect's test, which takes seconds and 100 MiB. Only the sidecar that
watches imports it.
"""

import numpy as np

from watchkeeper.core.drift_report import FeatureReport, Summary
from watchkeeper.core.policies import DriftPolicy
from watchkeeper.core.version import Statistics
from watchkeeper.drift.statistics.columns import Columns, Feature, Values
from watchkeeper.drift.statistics.effects import effect_size, z_score
from watchkeeper.drift.statistics.reference import Reference
from watchkeeper.drift.statistics.tabular_drift import TabularDrift

TEST_ROWS = 5000  # rows of the reference that are tested; more would only cost time


def compare(
    reference: Reference, window: Columns, policy: DriftPolicy, faults: dict[str, str]
) -> tuple[FeatureReport, ...]:
    """Compare every feature of a window with the reference.

    A feature has drifted if its test rejects after correction over all tested features *and* its
    effect is at least ``policy.minimum_effect`` and larger than the variation of the history.

    Args:
        reference: the reference.
        window: the answered rows, by feature.
        policy: the policy in force.
        faults: broken columns with a description of the fault. They and the scores that depend on
            them are left out.
    """
    left_out = {f.name: _left_out(f, faults, reference) for f in reference.features}
    tested = sum(not reason for reason in left_out.values())
    return tuple(
        _compare_feature(
            feature,
            reference,
            window[feature.name],
            policy,
            tested=tested,
            left_out=left_out[feature.name],
        )
        for feature in reference.features
    )


def _compare_feature(
    feature: Feature,
    reference: Reference,
    window: Values,
    policy: DriftPolicy,
    *,
    tested: int,
    left_out: str,
) -> FeatureReport:
    name = feature.name
    statistic, p_value = 0.0, 1.0
    if not left_out:
        statistic, p_value = _test(feature, reference.samples[name], window, policy.alpha)
        p_value = min(p_value * tested, 1.0)
    effect = effect_size(feature.kind, reference.samples[name], window)
    threshold = max(policy.minimum_effect, reference.variation.thresholds[-1][name])
    z = None
    if feature.is_discrete:
        baseline = _shares(feature, reference.samples[name])
        summary = _shares(feature, window)
    else:
        published = reference.baseline.get(name) or _moments(reference.samples[name])
        measured = _moments(window)
        z = z_score(measured.mean, published.mean, published.std)
        baseline = {"mean": published.mean, "std": published.std}
        summary = {"mean": measured.mean, "std": measured.std}
    return FeatureReport(
        name=name,
        kind=feature.kind,
        test="chi2" if feature.is_discrete else "ks",
        statistic=statistic,
        p_value=p_value,
        effect_size=effect,
        reference_threshold=threshold,
        z=z,
        baseline=baseline,
        window=summary,
        drifted=not left_out and p_value < policy.alpha and effect >= threshold,
        left_out=left_out,
    )


def _left_out(feature: Feature, faults: dict[str, str], reference: Reference) -> str:
    """Return why a feature does not count for the verdict; empty if it counts."""
    if feature.column in faults:
        return f"broken sensor: {faults[feature.column]}"
    if feature.kind == "score":
        broken = sorted(set(faults) & set(reference.depends.get(feature.name, faults)))
        return f"the score depends on broken sensors: {', '.join(broken)}" if broken else ""
    return ""


def _test(feature: Feature, reference: Values, window: Values, alpha: float) -> tuple[float, float]:
    """Return the statistic and the p-value of alibi-detect's TabularDrift for one feature.

    Missing values are left out: the check of the sensors counts them, or a feature of the kind
    "missing" compares their share. Each feature is tested alone,
    so that a column whose values are missing does not take the rows of the others away.
    """
    window = window[~np.isnan(window)]
    if not len(reference) or not len(window):
        return 0.0, 1.0
    # The reference is sorted: rows at equal distances have its distribution.
    reference = reference[:: -(-len(reference) // TEST_ROWS)]
    categorical = {0: None} if feature.is_discrete else {}
    detector = TabularDrift(
        reference[:, np.newaxis], p_val=alpha, categories_per_feature=categorical
    )
    result = detector.predict(window[:, np.newaxis])["data"]
    return float(result["distance"][0]), float(result["p_val"][0])


def _shares(feature: Feature, values: Values) -> Summary:
    values = values[~np.isnan(values)]
    names = (*feature.categories, "unknown")
    shares = [float((values == n).mean()) if len(values) else 0.0 for n in range(len(names))]
    return {name: share for name, share in zip(names, shares, strict=True) if share}


def _moments(values: Values) -> Statistics:
    values = values[~np.isnan(values)]
    if not len(values):
        return Statistics(mean=0.0, std=0.0)
    with np.errstate(over="ignore", invalid="ignore"):  # sums of values near the largest double
        return Statistics(mean=float(values.mean()), std=float(values.std()))
