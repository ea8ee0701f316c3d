"""The metrics report: what ``gate.json`` says, for people."""

from watchkeeper.contracts.version import Manifest
from watchkeeper.training.judged import GateReport, Metrics
from watchkeeper.training.measure import Estimate


def text(manifest: Manifest, report: GateReport, parameters: dict[str, object]) -> str:
    """Return the whole report as text."""
    lineage = manifest.lineage
    lines = [
        f"{manifest.model}: training run {lineage.run}",
        "",
        f"Gate       {'passed' if report.passed else 'rejected'}",
        f"Trigger    {lineage.trigger}",
        *([f"Episode    {lineage.episode}"] if lineage.episode else []),
        f"Data       {lineage.rows} rows of history, {lineage.labelled_rows} labelled predictions,"
        f" SHA-256 {lineage.data_hash[:16]}",
        f"Reference  {lineage.reference}",
        f"Parameters {', '.join(f'{name}={value}' for name, value in parameters.items())}",
        *(f"ONNX       {head.score}: {_onnx(head.onnx_difference)}" for head in manifest.heads),
        "",
        *_table("This version", report.metrics, report),
        "",
        "Answers: share of the rows that a label marks or a risk level is given to",
        *_by_rows(report.answers, report),
    ]
    if report.production is not None:
        title = f"Production, version {report.production}, on the same rows"
        lines += ["", *_table(title, report.production_metrics, report)]
    lines += ["", "Checks"]
    lines += [f"  {'pass' if c.passed else 'FAIL'}  {c.name}: {c.reason}" for c in report.checks]
    return "\n".join(lines) + "\n"


def _table(title: str, metrics: Metrics, report: GateReport) -> list[str]:
    about = f"estimate and 95 % confidence interval, positive from {report.threshold:g} on"
    return [f"{title}, {report.score}: {about}", *_by_rows(metrics, report)]


def _by_rows(metrics: Metrics, report: GateReport) -> list[str]:
    lines = []
    for where, values in metrics.items():
        rows = report.rows[where]
        lines.append(f"  held-out {where}, {rows['rows']} rows, {rows['positives']} positives")
        lines += [f"    {name:<18} {_shown(estimate)}" for name, estimate in values.items()]
    return lines


def _shown(estimate: Estimate) -> str:
    if estimate.value is None:
        return "not defined on these rows"
    return f"{estimate.value:.4f}  [{estimate.low:.4f}, {estimate.high:.4f}]"


def _onnx(difference: float | None) -> str:
    return "none" if difference is None else f"differs by at most {difference:.1e} on all rows"
