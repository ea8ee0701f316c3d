"""The page of a version shows people what the gate has seen, with the plots of each head's task."""

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import bearings
import msgspec
import numpy as np
import pumps
import pytest
from bearing import HEALTH, UNUSUAL
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pump_failure import MODEL as PUMPS
from sklearn.metrics import roc_curve

from watchkeeper.core.gate_report import Trial
from watchkeeper.core.head import Head
from watchkeeper.core.tasks import TASKS, task_of
from watchkeeper.core.tasks.base import Labelled
from watchkeeper.training.check import check
from watchkeeper.training.declaration import Model, Split
from watchkeeper.training.report.page import _drawn, write_page
from watchkeeper.training.report.plots import PLOTS, binary, multiclass, regression
from watchkeeper.training.report.text import metrics_report
from watchkeeper.training.run import Made

RISK = Head("risk", "risk.skops", "predict_proba", label="failed")
ROWS = 4000


class Page(HTMLParser):
    """The names of all elements, and the visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        self.elements.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("report") / "source.db"
    return pumps.database(place, bearings.readings(ROWS), "bearings")


@pytest.fixture(scope="module")
def health(source: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(HEALTH, source, tmp_path_factory.mktemp("health"))


def page_of(model: Model, url: str, place: Path) -> str:
    return written(check(model, url, place / "version"), place)


def written(made: Made, place: Path) -> str:
    return write_page(place, made.manifest, made.report, made.parameters, made.fitted).read_text()


def axes() -> Axes:
    return Figure().add_subplot()


def risks(seed: int = 0) -> Labelled:
    """Rows whose score is the probability of the truth."""
    random = np.random.default_rng(seed)
    score = random.beta(1, 6, ROWS)
    return Labelled((random.random(ROWS) < score).astype(float), {"risk": score})


def test_the_page_has_the_plots_of_the_task_of_each_head(health: str) -> None:
    found = Page(health)
    assert found.text.count("Confusion matrix") == 1
    assert found.text.count("ROC curves") == 1
    assert found.text.count("Prediction and truth") == 1
    assert found.text.count("Importance of columns") == 2
    for drawing in re.findall(r"<svg.*?</svg>", health, re.DOTALL):
        ElementTree.fromstring(drawing)  # noqa: S314 - our own


def test_a_binary_head_has_its_curves_with_intervals(history: str, tmp_path: Path) -> None:
    fast = msgspec.convert({"trees": 10, "search": "off"}, PUMPS.parameters)
    text = Page(written(check(PUMPS, history, tmp_path / "version", fast), tmp_path)).text
    for title in ("Confusion matrix", "ROC curve", "Precision and recall", "Calibration"):
        assert title in text
    assert "A row counts as positive from the score 0.499 on" in text


def test_the_reports_show_the_trials_the_best_first_and_count_them(
    history: str, tmp_path: Path
) -> None:
    made = check(PUMPS, history, tmp_path / "version", PUMPS.parameters(trees=10))
    best = made.report.search[0]
    pruned = Trial({"leaf": 6}, None, best.metric, "pruned", 3, [0.1, 0.2], 1.0, 1.0)
    failed = Trial({"leaf": 7}, None, best.metric, "failed", 4, [], 1.0, 1.0, "<b>too few</b>")
    report = msgspec.structs.replace(made.report, search=[*made.report.search, pruned, failed])
    made = msgspec.structs.replace(made, report=report)
    text = metrics_report(made.manifest, report, {})
    for shown in (text, Page(written(made, tmp_path)).text):
        assert "average_precision by cross-validation, 5 trials: 3 complete" in shown
        assert "1 pruned, 1 failed" in shown
        places = [
            shown.index(x)
            for x in (f"{best.value:.4f}", "pruned after 2 folds", "leaf=7: <b>too few</b>")
        ]
        assert places == sorted(places)


def test_the_page_loads_nothing_and_runs_nothing(health: str) -> None:
    assert not {"script", "link", "img", "iframe"} & set(Page(health).elements)
    assert not re.search(r"(?:src|href)=[\"'](?!#|data:image/png)", health)


def test_the_page_of_a_model_without_truth_has_no_plots(source: str, tmp_path: Path) -> None:
    page = page_of(UNUSUAL, source, tmp_path)
    assert "svg" not in Page(page).elements
    assert "unusual" in page


def test_names_from_the_data_are_text_and_no_elements(tmp_path: Path) -> None:
    evil = "<img src=x> $%$"
    table = bearings.readings(ROWS)
    table["state"] = table["state"].replace("worn", evil)
    source = pumps.database(tmp_path / "source.db", table, "bearings")
    (state, _) = HEALTH.heads
    renamed = msgspec.structs.replace(state, classes=("ok", evil, "broken"))
    model = msgspec.structs.replace(
        HEALTH, heads=(renamed,), gate=type(HEALTH.gate)(), answer=type(HEALTH.answer)()
    )
    found = Page(page_of(model, source, tmp_path))
    assert "img" not in found.elements
    assert evil in found.text
    assert "cannot be drawn" not in found.text


def test_the_importance_finds_the_columns_that_the_truth_depends_on(
    health: str,
) -> None:
    # The labels of the axis are in the order of the importance, the largest last.
    (_, life) = re.findall(r"<svg(?:(?!</svg>).)*Importance of columns.*?</svg>", health, re.DOTALL)
    names = [x.text for x in ElementTree.fromstring(life).iter() if x.text in bearings.NAMES]  # noqa: S314
    assert sorted(filter(None, names)) == sorted(bearings.NAMES)
    assert names[-1] == "hours"


def test_the_band_of_a_curve_contains_the_curve_of_most_other_samples() -> None:
    """Bands of 95 % around one sample; curves of other samples differ by the noise of both."""
    one = axes()
    assert binary.roc(one, task_of(RISK), risks(), 0)
    (band,) = one.collections
    edges = band.get_paths()[0].vertices
    for place in (0.2, 0.5):
        at = np.unique(edges[np.isclose(edges[:, 0], place)][:, 1])
        low, high = at.min(), at.max()
        assert 0.0 < high - low < 0.2
        inside = 0
        for seed in range(1, 41):
            other = risks(seed)
            false, true, _ = roc_curve(other.target, other.scores["risk"])
            inside += low <= np.interp(place, false, true) <= high
        assert inside >= 26  # of 40; the difference of two samples has 1.4 times the deviation


def test_a_calibrated_score_is_on_the_line_within_its_intervals() -> None:
    drawn = axes()
    assert binary.calibration(drawn, task_of(RISK), risks(), 0)
    bars = [np.asarray(bar.get_segments()[0]) for bar in drawn.collections]
    assert len(bars) == 10
    on_the_line = [low <= x <= high for (x, low), (_, high) in bars]
    assert sum(on_the_line) >= 8


def test_a_score_that_is_no_probability_has_no_calibration() -> None:
    distance = msgspec.structs.replace(RISK, method="decision_function")
    assert binary.calibration(axes(), task_of(distance), risks(), 0) is None


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_rows_with_one_outcome_have_no_curve(outcome: float) -> None:
    rows = Labelled(np.full(50, outcome), {"risk": np.linspace(0, 1, 50)})
    assert binary.roc(axes(), task_of(RISK), rows, 0) is None
    assert binary.precision_recall(axes(), task_of(RISK), rows, 0) is None
    assert binary.confusion(axes(), task_of(RISK), rows, 0)


def test_a_class_without_rows_has_no_curve() -> None:
    head = Head("state", "s.skops", "predict_proba", task="multiclass", classes=("a", "b", "c"))
    scores = {f"state_{name}": np.linspace(0, 1, 60) for name in "abc"}
    drawn = axes()
    assert multiclass.roc(drawn, task_of(head), Labelled(np.repeat([0.0, 2.0], 30), scores), 0)
    assert [line.get_label() for line in drawn.lines][:2] == ["a", "c"]


def test_a_plot_of_many_rows_shows_a_part_and_says_so() -> None:
    head = Head("life", "l.skops", "predict", task="regression")
    rows = Labelled(np.arange(10_000.0), {"life": np.arange(10_000.0)})
    said = regression.predicted(axes(), task_of(head), rows, 0)
    assert said is not None
    assert said.startswith("2000 of 10000 rows")


def test_each_task_with_a_truth_has_plots() -> None:
    assert set(PLOTS) == set(TASKS) - {"anomaly"}


def test_few_rows_with_groups_make_a_page(tmp_path: Path) -> None:
    table = bearings.readings(400)
    table["machine"] = [f"machine-{number % 40}" for number in range(len(table))]
    source = pumps.database(tmp_path / "source.db", table, "bearings")
    model = msgspec.structs.replace(
        HEALTH,
        heads=HEALTH.heads[:1],
        gate=type(HEALTH.gate)(),
        answer=type(HEALTH.answer)(),
        split=Split(group="machine"),
    )
    assert "Confusion matrix" in page_of(model, source, tmp_path)


def test_a_plot_that_fails_is_named_and_does_not_end_the_run(
    health: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> str:
        raise ValueError("Input X contains NaN")

    assert "cannot be drawn" not in health
    (picture,) = _drawn(fails, 1, 2)
    assert picture.caption == "A plot cannot be drawn: ValueError: Input X contains NaN"
    assert "cannot be drawn: Input X contains NaN" in caplog.text
