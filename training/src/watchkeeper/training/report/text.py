"""The metrics report: the content of ``gate.json`` as text for people."""

from watchkeeper.core.estimates import Estimate
from watchkeeper.core.gate_report import Duplicates, GateReport
from watchkeeper.core.version import Manifest
from watchkeeper.training.report import trials

Measured = dict[str, dict[str, Estimate]]  # by the rows, then by what is measured


def metrics_report(manifest: Manifest, report: GateReport, parameters: dict[str, object]) -> str:
    """Return the report about a version that was trained with ``parameters``."""
    lines = [
        f"{manifest.model}: training run {manifest.lineage.run}",
        "",
        *(f"{name:<10} {value}" for name, value in facts(manifest, report, parameters)),
        "",
        *_metrics("This version", report.metrics, report),
        "",
        "Answers: share of the rows that a label marks, or that a class or risk level is given to",
        *_by_rows(report.answers, report),
    ]
    if report.production is not None:
        title = f"Production, version {report.production}, on the same rows"
        lines += ["", *_metrics(title, report.production_metrics, report)]
    lines += ["", "Checks"]
    lines += [f"  {'pass' if c.passed else 'FAIL'}  {c.name}: {c.reason}" for c in report.checks]
    if report.search:
        lines += ["", f"Search for parameters: {trials.summary(report.search)}"]
        lines += [f"  {trials.outcome(x):<20} {trials.parameters(x)}" for x in report.search]
    if report.suspicions:
        lines += ["", "Suspicions: they do not decide, look at these columns"]
        lines += [f"  {suspicion}" for suspicion in report.suspicions]
    if report.consequences:
        lines += ["", "What the estimators cannot do, and what follows"]
        lines += [f"  {consequence}" for consequence in report.consequences]
    return "\n".join(lines) + "\n"


def facts(
    manifest: Manifest, report: GateReport, parameters: dict[str, object]
) -> list[tuple[str, str]]:
    """Return what the report begins with: names and values."""
    lineage = manifest.lineage
    return [
        ("Gate", "passed" if report.passed else "rejected"),
        ("Trigger", lineage.trigger),
        *([("Episode", lineage.episode)] if lineage.episode else []),
        (
            "Data",
            f"{lineage.rows} rows of history, {lineage.labelled_rows} labelled predictions,"
            f" SHA-256 {lineage.data_hash[:16]}",
        ),
        *([("Sample", str(lineage.sample))] if lineage.sample else []),
        ("Reference", f"{lineage.reference}{_reference(report)}"),
        ("Parameters", ", ".join(f"{name}={x}" for name, x in parameters.items() if x != "")),
        *(("Duplicates", _duplicates(where, x)) for where, x in report.duplicates.items()),
        *(("ONNX", f"{head.score}: {_onnx(head.onnx_difference)}") for head in manifest.heads),
    ]


def described(estimate: Estimate) -> str:
    """Return an estimate with its interval."""
    if estimate.value is None:
        return "not defined on these rows"
    return f"{estimate.value:.4f}  [{estimate.low:.4f}, {estimate.high:.4f}]"


def counted(report: GateReport, where: str) -> str:
    """Return how many held-out rows there are, and how many of each outcome."""
    return ", ".join(f"{count} {what}" for what, count in report.rows[where].items())


def _reference(report: GateReport) -> str:
    parts = [f"recent rows are refused: {report.reference_refused}"] * bool(
        report.reference_refused
    )
    if report.left_out:
        counts = ", ".join(f"{kind}: {count}" for kind, count in report.left_out.items())
        parts.append(f"recent rows that do not describe the traffic are left out: {counts}")
    return "".join(f"; {part}" for part in parts)


def _duplicates(where: str, found: Duplicates) -> str:
    text = (
        f"{where}: {found.repeated} of {found.rows} rows ({found.share:.1%}) equal an earlier row"
    )
    if found.limit is None:
        return text
    return f"{text}, {found.by_chance:.1%} by chance, {found.limit:.1%} more are allowed"


def _metrics(title: str, measured: Measured, report: GateReport) -> list[str]:
    about = "estimate and 95 % confidence interval"
    if report.threshold is not None:
        about += f", positive from {report.threshold:g} on"
    return [f"{title}, {report.score}: {about}", *_by_rows(measured, report)]


def _by_rows(measured: Measured, report: GateReport) -> list[str]:
    lines = []
    for where, values in measured.items():
        lines.append(f"  held-out {where}, {counted(report, where)}")
        lines += [f"    {name:<18} {described(value)}" for name, value in values.items()]
    return lines


def _onnx(difference: float | None) -> str:
    return "none" if difference is None else f"differs by at most {difference:.1e} on all rows"
