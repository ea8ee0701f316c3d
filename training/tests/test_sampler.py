"""A large history is read as a sample of whole blocks, and it is said that it is one."""

import logging
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pumps
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchkeeper.core.events import GatePassed, GateRejected
from watchkeeper.core.names import model_uri
from watchkeeper.core.sample import Sample
from watchkeeper.core.version import METRICS_REPORT, read_manifest
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import history as events
from watchkeeper.pipeline import load
from watchkeeper.registry import Registry
from watchkeeper.training import CannotTrainError
from watchkeeper.training.check import check
from watchkeeper.training.declaration import Model, Split
from watchkeeper.training.declaration.errors import DeclarationError
from watchkeeper.training.history import read_history
from watchkeeper.training.models import find, parameters_of
from watchkeeper.training.read import Production, TrainingInput
from watchkeeper.training.recent import Recent
from watchkeeper.training.rows import Rows
from watchkeeper.training.run import TrainingRequest, train
from watchkeeper.training.sampler import Sampler
from watchkeeper.training.split import Parts, block_numbers, split

BLOCK, LIMIT = 10, 1000
SMALL = msgspec.convert({"trees": 10, "search": "off"}, find("pump-failure").parameters)


def limited(name: str = "pump-failure", limit: int = LIMIT, group: str = "") -> Model:
    model = find(name)
    source = msgspec.structs.replace(model.source, query="SELECT * FROM pump_readings")
    rule = Split(block_rows=BLOCK, history_rows=limit, group=group)
    return msgspec.structs.replace(model, source=source, split=rule)


def read(folder: Path, table: pd.DataFrame, model: Model) -> tuple[Rows, Sampler]:
    sampler = Sampler(model.split)
    path = folder / f"{len(list(folder.iterdir()))}.db"
    return read_history(pumps.database(path, table), model, sampler), sampler


def sampled(ids: np.ndarray, limit: int, size: int, rule: Split) -> list[int]:
    """Return the ids of the sample if the ids arrive in parts of a size."""
    sampler = Sampler(rule, limit)
    for start in range(0, len(ids), size):
        part = ids[start : start + size]
        chosen = sampler.choose(part, np.ones(len(part), dtype=bool))
        sampler.keep(pd.DataFrame(index=pd.Index(part[chosen])))
    return sorted(sampler.take("a test").index)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 2**60),
    st.integers(100, 12_000),
    st.integers(1, 1000),
    st.sampled_from([7, 50]),
    st.integers(0, 2**32),
)
def test_a_sample_is_whole_blocks_within_the_limit_whatever_the_order_of_the_rows(
    first: int, count: int, step: int, block_rows: int, seed: int
) -> None:
    rule, limit = Split(block_rows=block_rows), 2500
    ids = first + step * np.arange(count)
    found = sampled(ids, limit, 3000, rule)
    assert limit / 5 < len(found) <= limit or found == list(ids)
    assert count > limit or found == list(ids)
    chosen = np.isin(block_numbers(ids, rule), block_numbers(np.array(found), rule))
    assert found == list(ids[chosen])
    assert sampled(np.random.default_rng(seed).permutation(ids), limit, 997, rule) == found


def test_a_history_below_the_limit_is_read_as_it_is(tmp_path: Path) -> None:
    table = pumps.readings(LIMIT)
    rows, sampler = read(tmp_path, table, limited())
    everything, _ = read(tmp_path, table, limited(limit=0))
    assert sampler.sample is None
    pd.testing.assert_frame_equal(rows.columns, everything.columns)


def test_the_limit_counts_labelled_rows_only(tmp_path: Path) -> None:
    table = pumps.readings(4 * LIMIT)
    known = np.arange(len(table)) % 4 == 1
    rows, sampler = read(tmp_path, table.assign(failed=table["failed"].where(known)), limited())
    assert len(rows) == LIMIT
    assert sampler.sample is None


def test_shares_of_outcomes_and_stretches_of_time_stay(tmp_path: Path) -> None:
    table = pumps.readings(60_000)
    rows, sampler = read(tmp_path, table, limited(limit=10_000))
    assert sampler.sample == Sample(len(rows), 60_000, 8)
    assert rows.target.mean() == pytest.approx(table["failed"].mean(), rel=0.15)
    tenths = np.histogram(rows.key, bins=10, range=(1, 60_000))[0] / len(rows)
    assert tenths == pytest.approx(np.full(10, 0.1), abs=0.03)


def sides(parts: Parts) -> dict[int, str]:
    return {
        int(key): side
        for side, rows in (("fitted", parts.train), ("held out", parts.held))
        for key in rows.key
    }


@pytest.mark.parametrize("group", ["", "pump"])
def test_new_rows_neither_move_old_ones_nor_bring_others_back(tmp_path: Path, group: str) -> None:
    table = pumps.readings(20_000).assign(pump=[f"pump-{n % 37 % (n + 1)}" for n in range(20_000)])
    model = limited(group=group)
    before: dict[int, str] = {}
    newest = 0
    for count in (900, 1500, 1600, 5000, 20_000):
        rows, sampler = read(tmp_path, table[:count], model)
        numbers = sampler.group_numbers(rows.group)
        nothing = rows.where(np.zeros(len(rows), dtype=bool))
        found = sides(split(rows, nothing, model, group_numbers=numbers))
        assert {key: side for key, side in found.items() if key <= newest}.items() <= before.items()
        before, newest = found, count


def test_all_groups_are_in_the_sample_and_their_order_is_that_of_all_rows(tmp_path: Path) -> None:
    table = pumps.readings(8000)
    table["pump"] = [f"pump-{n % 20}" for n in range(len(table))]
    rows, sampler = read(tmp_path, table, limited(group="pump"))
    found = sampler.group_numbers(rows.group)
    assert found is not None
    assert set(rows.group) == set(table["pump"])
    numbers = dict(zip(rows.group, found, strict=True))
    assert numbers == {f"pump-{number}": number for number in range(20)}


def test_ids_of_rows_that_are_not_read_are_checked(tmp_path: Path) -> None:
    table = pumps.readings(4 * LIMIT).astype({"id": float})
    rows, _ = read(tmp_path, table, limited())
    outside = next(key for key in table["id"] if key not in set(rows.key))
    table.loc[table["id"] == outside, "id"] += 0.5
    with pytest.raises(CannotTrainError, match=f"column 'id' holds the number {outside + 0.5} "):
        read(tmp_path, table, limited())


def test_rows_with_the_same_id_are_found_or_are_too_many(tmp_path: Path) -> None:
    table = pumps.readings(4 * LIMIT)
    with pytest.raises(CannotTrainError, match="another row has the same id"):
        read(tmp_path, table.assign(id=(table["id"] + 1) // 2), limited())
    with pytest.raises(CannotTrainError, match="an id must be an integer that no other row has"):
        read(tmp_path, table.assign(id=1), limited())


def test_a_sample_is_stated_in_log_manifest_report_registry_and_event(
    tmp_path: Path, registry: Registry, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    model = msgspec.structs.replace(limited(limit=4000), name="pump-sample")
    parameters, chosen = parameters_of(model, ["trees=20", "search=off"])
    request = TrainingRequest(model, "one", "a test", parameters, frozenset(chosen))
    url = pumps.database(tmp_path / "source.db", pumps.readings(9000))
    caplog.set_level(logging.INFO, "watchkeeper")
    version = train(request, url, registry, ledger)

    registry.download(model_uri(model.name, version.version), tmp_path / "version")
    lineage = read_manifest(tmp_path / "version").lineage
    assert lineage.sample == Sample(lineage.rows, 9000, 4)
    stated = str(lineage.sample)
    assert stated == (
        f"{lineage.rows:,} of 9,000 rows: one in 4 blocks of consecutive ids, chosen by "
        "a hash of the block's number"
    )
    assert f"read: {lineage.rows} rows of history ({stated})" in caplog.text
    assert f"Sample     {stated}\n" in (tmp_path / "version" / METRICS_REPORT).read_text()
    assert version.tags["watchkeeper.sample"] == stated
    (gate,) = events(ledger, model.name, version=version.version)
    assert isinstance(gate.details, GatePassed | GateRejected)
    assert gate.details.data.sample == lineage.sample


def test_production_knows_the_rows_up_to_its_newest_one_whatever_sample_it_has_read(
    tmp_path: Path,
) -> None:
    model = limited(limit=4000)
    folder = tmp_path / "version"
    check(model, pumps.database(tmp_path / "old.db", pumps.readings(5000)), folder, SMALL)
    production = Production(1, load(folder))
    rows, _ = read(tmp_path, pumps.readings(12_000), model)
    nothing = Recent(rows.where(np.zeros(len(rows), dtype=bool)), None)
    inputs = TrainingInput(rows, nothing, production)
    newest = production.model.manifest.lineage.newest_id
    assert newest is not None
    assert 4900 < newest <= 5000
    assert inputs.rows_known_to_production == (rows.key <= newest).sum()
    assert inputs.rows_known_to_production < production.model.manifest.lineage.rows


def test_a_limit_that_leaves_too_few_blocks_is_refused() -> None:
    with pytest.raises(DeclarationError, match="it must be at least 10000, for 20 blocks of 500"):
        Split(history_rows=9999)
    Split(history_rows=0)
