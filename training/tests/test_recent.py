"""Recent rows: predictions of the present regime with their labels."""

from typing import Any

import msgspec
import numpy as np
import pumps
import pytest

from watchkeeper.core.events import EpisodeState
from watchkeeper.core.record import Prediction
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.episodes import Episode, save_episode
from watchkeeper.ledger.records import store_records
from watchkeeper.ledger.spools import SpoolState
from watchkeeper.training import CannotTrainError
from watchkeeper.training.models import find
from watchkeeper.training.recent import read_recent

MODEL = find("pump-failure")


def episode(name: str, state: EpisodeState, onset: float) -> Episode:
    return Episode(name, MODEL.name, 1, state, onset, onset + 10, onset + 20, 1, "a test")


def store(ledger: Ledger, since: float, labelled: int, rows: int = 50, **more: Any) -> None:
    table = pumps.readings(rows, seed=int(since)).assign(**more)
    pumps.store_predictions(ledger, MODEL.name, table, version=1, since=since, labelled=labelled)


def test_a_ledger_without_predictions_has_no_recent_rows(ledger: Ledger) -> None:
    found = read_recent(ledger, MODEL, [], None)
    assert (len(found.rows), found.regime) == (0, None)


def test_rows_are_in_time_order_and_rows_without_a_label_have_no_target(
    ledger: Ledger,
) -> None:
    store(ledger, 2000.0, labelled=0)
    store(ledger, 1000.0, labelled=20)
    rows = read_recent(ledger, MODEL, [1], None).rows
    assert len(rows) == 100
    assert list(rows.key) == sorted(rows.key)
    assert np.isnan(rows.target).sum() == 80
    assert not np.isnan(rows.target[:20]).any()


@pytest.mark.parametrize(
    ("state", "rows"), [("promoted", 50), ("training", 50), ("given-up", 50), ("clean", 100)]
)
def test_the_regime_begins_with_the_last_drift_that_did_not_pass(
    ledger: Ledger, state: EpisodeState, rows: int
) -> None:
    store(ledger, 1000.0, labelled=50)
    store(ledger, 2000.0, labelled=50)
    save_episode(ledger, episode("old", "clean", 500.0))
    save_episode(ledger, episode("new", state, 2000.0))
    assert len(read_recent(ledger, MODEL, [1], None).rows) == rows


def test_the_requested_episode_decides_the_regime(ledger: Ledger) -> None:
    store(ledger, 1000.0, labelled=50)
    store(ledger, 2000.0, labelled=50)
    save_episode(ledger, episode("requested", "training", 1000.0))
    save_episode(ledger, episode("other", "promoted", 2000.0))
    assert read_recent(ledger, MODEL, [1], "requested").regime == 1000.0
    with pytest.raises(CannotTrainError, match="has no such episode"):
        read_recent(ledger, MODEL, [1], "nobody")


def test_row_with_another_label_than_0_or_1_has_no_label(ledger: Ledger) -> None:
    store(ledger, 1000.0, labelled=50)
    store(ledger, 2000.0, labelled=50, failed=7)
    rows = read_recent(ledger, MODEL, [1], None).rows
    assert len(rows) == 100
    assert np.isnan(rows.target).tolist() == [False] * 50 + [True] * 50


def test_wrong_rows_of_clients_are_left_out(ledger: Ledger) -> None:
    store(ledger, 1000.0, labelled=50)
    store(ledger, 3000.0, labelled=50, grade="X")
    store(ledger, 4000.0, labelled=50, load=-5.0)
    rows = read_recent(ledger, MODEL, [1], None).rows
    assert len(rows) == 50
    assert set(np.unique(rows.target)) <= {0.0, 1.0}


def test_predictions_of_which_none_can_be_used_do_not_fail_a_run(ledger: Ledger) -> None:
    store(ledger, 1000.0, labelled=50, load=-5.0)
    assert len(read_recent(ledger, MODEL, [1], None).rows) == 0


def test_only_the_newest_labelled_rows_are_read(ledger: Ledger) -> None:
    split = msgspec.structs.replace(MODEL.split, recent_rows=30, reference_rows=10)
    model = msgspec.structs.replace(MODEL, split=split)
    store(ledger, 1000.0, labelled=50)
    store(ledger, 2000.0, labelled=20)
    rows = read_recent(ledger, model, [1], None).rows
    assert (~np.isnan(rows.target)).sum() == 30
    assert len(rows) == 40
    assert {int(key[:16], 16) for key in rows.key} == {1000, 2000}
    assert min(int(key[16:], 16) for key in rows.key if int(key[:16], 16) == 1000) == 40


def test_large_requests_are_read_up_to_the_size_of_the_reference(ledger: Ledger) -> None:
    split = msgspec.structs.replace(MODEL.split, reference_rows=250)
    table = pumps.readings(100)
    inputs = {name: table[name].tolist() for name in pumps.COLUMNS}
    sent = [
        Prediction(f"{n:032x}", 1, MODEL.name, 1, "http", "t", 1000.0 + n, 0.1, "OK", 100, inputs)
        for n in range(10)
    ]
    store_records(ledger, sent, [], SpoolState("spool", MODEL.name, 1, 2000.0))
    rows = read_recent(ledger, msgspec.structs.replace(MODEL, split=split), [1], None).rows
    assert {int(key, 16) for key in rows.key} == {7, 8, 9}
