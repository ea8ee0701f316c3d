"""The page of a version: one HTML file without scripts, with all numbers and plots."""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import matplotlib as mpl
import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from watchkeeper.core.gate_report import GateReport
from watchkeeper.core.head import Head
from watchkeeper.core.tasks import task_of
from watchkeeper.core.version import Manifest
from watchkeeper.training.declaration import Parameters
from watchkeeper.training.fit import Fitted
from watchkeeper.training.report.importance import draw_importance
from watchkeeper.training.report.plots import PLOTS
from watchkeeper.training.report.text import counted, described, facts

NAME: Final = "report.html"
_NO_METADATA: Final = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_INCHES: Final = (4.0, 3.4)


class Picture(msgspec.Struct, frozen=True):
    """A plot as an SVG element, and the sentence below it."""

    svg: Markup
    caption: str


def write_page(
    folder: Path, manifest: Manifest, report: GateReport, parameters: Parameters, fitted: Fitted
) -> Path:
    """Write the page of a version into a folder, and return its path.

    Args:
        folder: where the file is written.
        manifest: describes the version.
        report: the gate's report.
        parameters: what the version was trained with.
        fitted: the heads, their pipelines, and the scores of the held-out rows.
    """
    environment = Environment(
        loader=PackageLoader("watchkeeper.training.report", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    # Text stays text: it can be searched, and the file does not depend on fonts of this machine.
    with mpl.rc_context({"svg.fonttype": "none", "font.size": 9.0, "axes.titlesize": "medium"}):
        heads = {x.score: list(_pictures(x, fitted, parameters.seed)) for x in manifest.heads}
    text = environment.get_template("page.html.j2").render(
        manifest=manifest,
        report=report,
        facts=facts(manifest, report, msgspec.to_builtins(parameters)),
        heads={score: pictures for score, pictures in heads.items() if pictures},
        described=described,
        counted=counted,
    )
    path = folder / NAME
    path.write_text(text, encoding="utf-8")
    return path


def _pictures(head: Head, fitted: Fitted, seed: int) -> Iterator[Picture]:
    """Yield the plots of a head on the rows of the history that it has not seen."""
    task = task_of(head)
    held = fitted.held.about(head.label) if task.has_labels else None
    if held is None or not len(held):
        return
    for plot in PLOTS.get(head.task, ()):
        figure = _figure()
        caption = plot(figure.gca(), task, held.truth(), seed)
        if caption is not None:
            yield Picture(_svg(figure), caption)
    figure = _figure()
    pipeline = fitted.pipelines[head.score]
    caption = draw_importance(figure.gca(), head, pipeline, held.rows, seed)
    yield Picture(_svg(figure), caption)


def _figure() -> Figure:
    """Return a figure that no global state of matplotlib knows: it is freed with its last user."""
    figure = Figure(figsize=_INCHES, layout="constrained")
    figure.add_subplot()
    return figure


def _svg(figure: Figure) -> Markup:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=_NO_METADATA, transparent=True)
    # A page has no place for the XML declaration and the document type before the element.
    return Markup(re.sub(r"^.*?(?=<svg)", "", file.getvalue(), count=1, flags=re.DOTALL))  # noqa: S704
