"""The page of a version: one HTML file without scripts, with all numbers and plots."""

import io
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

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
from watchkeeper.training.report import trials
from watchkeeper.training.report.importance import draw_importance
from watchkeeper.training.report.plots import PLOTS
from watchkeeper.training.report.text import counted, described, facts

log = logging.getLogger(__name__)

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
    # Text stays text: it can be searched, the file does not depend on fonts of this machine, and a
    # name with dollars is no formula.
    with mpl.rc_context(
        {
            "svg.fonttype": "none",
            "text.parse_math": False,
            "font.size": 9.0,
            "axes.titlesize": "medium",
        }
    ):
        heads = {x.score: list(_pictures(x, fitted, parameters.seed)) for x in manifest.heads}
    text = environment.get_template("page.html.j2").render(
        manifest=manifest,
        report=report,
        facts=facts(manifest, report, msgspec.to_builtins(parameters)),
        heads={score: pictures for score, pictures in heads.items() if pictures},
        described=described,
        counted=counted,
        trials=trials,
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
        yield from _drawn(plot, task, held.truth(), seed)
    yield from _drawn(draw_importance, head, fitted.pipelines[head.score], held.rows, seed)


def _drawn(plot: Callable[..., str | None], *given: Any) -> list[Picture]:
    """Draw one plot of what is given.

    A version is good without its picture, so no error of a plot ends a training run.
    """
    # A figure that no global state of matplotlib knows: it is freed with its last user.
    figure = Figure(figsize=_INCHES, layout="constrained")
    try:
        caption = plot(figure.add_subplot(), *given)
        return [] if caption is None else [Picture(_svg(figure), caption)]
    except (OSError, MemoryError):
        raise  # of the machine
    except Exception as error:  # noqa: BLE001 - features of users see values that never occur
        log.warning("a plot of the page of the version cannot be drawn: %s", error)
        reason = f"A plot cannot be drawn: {type(error).__name__}: {error}"
        return [Picture(Markup(""), reason)]


def _svg(figure: Figure) -> Markup:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=_NO_METADATA, transparent=True)
    # A page has no place for the XML declaration and the document type before the element.
    return Markup(re.sub(r"^.*?(?=<svg)", "", file.getvalue(), count=1, flags=re.DOTALL))  # noqa: S704
