"""The simulated vehicles: their rules, their tables, and the cases that are made of them."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import create_engine, text
from warranty_risk.plant import PLANT, Lines, tables
from warranty_risk.plant.assembly import (
    LINES,
    LOTS,
    STATIONS,
    VENDORS,
    Assembly,
    Built,
    features,
)
from warranty_risk.plant.scenarios import FEATURES, SCENARIOS, STEADY, Scenario

from watchkeeper.demo.plants import PlantError, tables_by_model
from watchkeeper.demo.system import SystemUnavailableError

SAMPLE = (3, 50.2, 3.1, 0.05, 0.1, 98.4, 4.2)
Numbers = dict[str, Any]


def features_of(built: Built) -> Numbers:
    stations = {name: column.reshape(-1, STATIONS) for name, column in built.stations.items()}
    vendors = {name: column.reshape(-1, LOTS) for name, column in built.vendors.items()}
    return features(stations, vendors)


def built_under(scenario: Scenario, count: int = 20_000) -> tuple[Built, Numbers]:
    built = Assembly(seed=5).build(count, scenario)
    return built, features_of(built)


def auc(labels: Any, scores: Any) -> float:
    """Area under the ROC curve, by ranks."""
    ranks = np.argsort(np.argsort(scores)) + 1
    positives = labels.sum()
    found = ranks[labels == 1].sum() - positives * (positives + 1) / 2
    return float(found / (positives * (len(labels) - positives)))


def test_the_documented_sample_is_a_usual_vehicle() -> None:
    _, made = built_under(STEADY)
    for name, value in zip(FEATURES, SAMPLE, strict=True):
        low, high = np.quantile(made[name], (0.05, 0.95))
        assert low <= value <= high, name


def test_one_vehicle_in_a_dozen_has_a_claim_and_the_rule_ranks_them() -> None:
    built, made = built_under(STEADY)
    assert 0.06 <= built.claims.mean() <= 0.10
    assert 0.87 <= auc(built.claims, STEADY.rule.risk(made)) <= 0.93


def test_hidden_variables_correlate_the_features() -> None:
    _, made = built_under(STEADY)
    for one, other in (
        ("total_error_count", "rework_ratio"),
        ("total_error_count", "torque_deviation"),
        ("total_error_count", "vendor_defect_ratio"),
    ):
        assert np.corrcoef(made[one], made[other])[0, 1] > 0.08, (one, other)


def test_the_drift_of_the_demo_reverses_the_rule_on_vehicles_that_differ() -> None:
    changed = SCENARIOS[PLANT.drift]
    built, made = built_under(changed)
    _, before = built_under(STEADY)
    assert 0.15 <= built.claims.mean() <= 0.25
    assert auc(built.claims, changed.rule.risk(made)) > 0.87
    assert auc(built.claims, STEADY.rule.risk(made)) < 0.65
    assert made["avg_torque"].min() > np.quantile(before["avg_torque"], 0.999)


def test_a_drift_of_inputs_leaves_the_rule_alone_and_the_other_way_round() -> None:
    _, before = built_under(STEADY)
    worn, longer = SCENARIOS["worn-wrenches"], SCENARIOS["longer-warranty"]
    assert worn.rule == STEADY.rule
    moved = built_under(worn)[1]
    assert moved["torque_deviation"].mean() > 1.3 * before["torque_deviation"].mean()
    built, same = built_under(longer)
    for name in FEATURES:
        assert np.array_equal(same[name], before[name]), name
    assert built.claims.mean() > 1.7 * built_under(STEADY)[0].claims.mean()


def test_the_same_seed_builds_the_same_vehicles() -> None:
    first, second = (Assembly(seed=6).build(50, STEADY) for _ in range(2))
    assert np.array_equal(first.stations["torque"], second.stations["torque"])
    assert first.claims.tolist() == second.claims.tolist()


@pytest.fixture
def url(tmp_path: Path) -> str:
    found = f"sqlite:///{tmp_path / 'operational.db'}"
    tables.seed(found, 200)
    return found


def rows(url: str, query: str) -> list[Any]:
    engine = create_engine(url)
    with engine.connect() as connection:
        found = connection.execute(text(query)).all()
    engine.dispose()
    return list(found)


def test_the_history_is_stored_once_with_lines_and_vendors_interleaved(url: str) -> None:
    assert tables.seed(url, 999) == 200
    known = rows(url, "SELECT id, line, completed, warranty_claim FROM vehicles ORDER BY id")
    assert [row.id for row in known] == list(range(1, 201))
    assert all(a.completed < b.completed for a, b in pairwise(known))
    assert {row.line for row in known[:30]} == set(LINES)
    assert {row.warranty_claim for row in known} == {0, 1}
    assert rows(url, "SELECT count(*) FROM stations") == [(200 * STATIONS,)]
    assert {row.vendor for row in rows(url, "SELECT vendor FROM vendors")} == set(VENDORS)


def test_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlantError, match="warranty-risk"):
        tables_by_model(["warranty-risk"], tmp_path / "any.csv")


@pytest.fixture
def working(url: str, tmp_path: Path) -> Iterator[Lines]:
    live = PLANT.start(url, seed=3, data=None, label_delay=0.1, log=tmp_path / "plant.log")
    assert isinstance(live, Lines)
    yield live
    live.close()


def test_vehicles_go_through_the_plants_tables_and_the_models_refresh(
    url: str, working: Lines
) -> None:
    cases = working.cases(10, "steady") + working.cases(10, "steady")
    assert [case.subject for case in cases] == [f"vehicle-{n}" for n in range(201, 221)]
    known = rows(url, "SELECT * FROM vehicle_features WHERE vehicle_id > 200 ORDER BY vehicle_id")
    for case, row in zip(cases, known, strict=True):
        assert case.row == {name: getattr(row, name) for name in FEATURES}
    expected = features_of(Assembly(seed=3).build(10, STEADY))
    for name in FEATURES:
        mine = [case.row[name] for case in cases[:10]]
        assert mine == pytest.approx(expected[name].tolist()), name
    assert rows(url, "SELECT count(*) FROM vehicles WHERE completed IS NULL") == [(10,)]


@pytest.mark.parametrize(("label_delay", "known"), [(0.0, True), (3_600.0, False)])
def test_a_claim_is_written_when_its_delay_has_passed(
    url: str, tmp_path: Path, label_delay: float, known: bool
) -> None:
    live = PLANT.start(url, seed=3, data=None, label_delay=label_delay, log=tmp_path / "plant.log")
    try:
        cases = live.cases(10, "steady") + live.cases(10, "steady")
    finally:
        live.close()
    claims = rows(url, "SELECT id, warranty_claim FROM vehicles WHERE id > 200 ORDER BY id")
    outcomes = [case.outcome if known else None for case in cases]
    on_the_lines = [None] * 10
    assert [row.warranty_claim for row in claims] == outcomes + on_the_lines


def test_an_ended_refresh_is_reported_with_its_log(url: str, working: Lines) -> None:
    working._refresher.kill()
    with pytest.raises(SystemUnavailableError, match=r"plant\.log"):
        working.cases(1, "steady")
    assert rows(url, "SELECT count(*) FROM vehicles") == [(201,)]
