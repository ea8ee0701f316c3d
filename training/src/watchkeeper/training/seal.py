"""Stage 7, seal: write the version's folder with its manifest and the digests of all files."""

from pathlib import Path

import msgspec

from watchkeeper.core import version
from watchkeeper.core.gate_report import GateReport, write_report
from watchkeeper.core.version import METRICS_REPORT, REFERENCE, Lineage, Manifest
from watchkeeper.training import artifact
from watchkeeper.training.declaration import Model, Parameters
from watchkeeper.training.export import Exported
from watchkeeper.training.fit import Fitted
from watchkeeper.training.reference import Reference, baseline, write_parquet
from watchkeeper.training.report.text import metrics_report


def seal(
    folder: Path,
    model: Model,
    *,
    parameters: Parameters,
    fitted: Fitted,
    exported: Exported,
    report: GateReport,
    lineage: Lineage,
    reference: Reference,
    depends: dict[str, list[str]],
) -> Manifest:
    """Write and seal the folder of a version, and return its manifest.

    Args:
        folder: must be empty or missing.
        model: the declaration.
        parameters: the parameters that the version was trained with.
        fitted: pipelines, and the scores of the rows for the example.
        exported: heads and ONNX files.
        report: the gate's report.
        lineage: where the version comes from; its ``reference`` is set here.
        reference: the reference of the drift watch.
        depends: the request columns that each score depends on.
    """
    manifest = Manifest(
        model=model.name,
        signature=model.signature,
        heads=exported.heads,
        answer=model.answer,
        drift=model.drift,
        rollout=model.rollout,
        lineage=msgspec.structs.replace(lineage, reference=reference.describes),
        judged=model.main_head.score,
    )
    example = artifact.choose_example(fitted.held, model.task.scores[0])
    artifact.write_pipelines(folder, fitted.pipelines, manifest, example.rows)
    for name, form in exported.files.items():
        (folder / name).write_bytes(form)
    artifact.write_example(folder, example, manifest)
    write_parquet(folder / REFERENCE, reference, depends, model)
    artifact.write_baseline(folder, baseline(reference, model))
    write_report(folder, report)
    text = metrics_report(manifest, report, msgspec.to_builtins(parameters))
    (folder / METRICS_REPORT).write_text(text)
    return version.seal(folder, manifest)
