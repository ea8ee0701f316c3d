"""Recent rows: what was predicted since the regime began, and with which labels."""

from typing import Any

import milling
import msgspec
import numpy as np
import pytest

from watchkeeper.contracts.record import Prediction
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.episodes import Episode, State, save_episode
from watchkeeper.ledger.store import SpoolState, ship
from watchkeeper.training import CannotTrainError
from watchkeeper.training.models import find
from watchkeeper.training.recent import read_recent

MODEL = find("ai4i-failure")


def episode(name: str, state: State, onset: float) -> Episode:
    return Episode(name, MODEL.name, 1, state, onset, onset + 10, onset + 20, 1, "a test")


def predicted(ledger: Ledger, since: float, labelled: int, rows: int = 50, **more: Any) -> None:
    table = milling.pieces(rows, seed=int(since)).assign(**more)
    milling.predicted(ledger, MODEL.name, table, version=1, since=since, labelled=labelled)


def test_a_ledger_without_predictions_has_no_recent_rows(ledger: Ledger) -> None:
    found = read_recent(ledger, MODEL, [], None)
    assert (len(found.rows), found.regime) == (0, None)


def test_rows_are_in_time_order_and_without_a_target_where_no_label_has_arrived(
    ledger: Ledger,
) -> None:
    predicted(ledger, 2000.0, labelled=0)
    predicted(ledger, 1000.0, labelled=20)
    rows = read_recent(ledger, MODEL, [1], None).rows
    assert len(rows) == 100
    assert list(rows.key) == sorted(rows.key)
    assert np.isnan(rows.target).sum() == 80
    assert not np.isnan(rows.target[:20]).any()


@pytest.mark.parametrize(
    ("state", "rows"), [("promoted", 50), ("training", 50), ("given-up", 50), ("clean", 100)]
)
def test_the_regime_began_with_the_last_drift_that_did_not_go_by_again(
    ledger: Ledger, state: State, rows: int
) -> None:
    predicted(ledger, 1000.0, labelled=50)
    predicted(ledger, 2000.0, labelled=50)
    save_episode(ledger, episode("old", "clean", 500.0))
    save_episode(ledger, episode("new", state, 2000.0))
    assert len(read_recent(ledger, MODEL, [1], None).rows) == rows


def test_the_episode_that_asks_decides(ledger: Ledger) -> None:
    predicted(ledger, 1000.0, labelled=50)
    predicted(ledger, 2000.0, labelled=50)
    save_episode(ledger, episode("asks", "training", 1000.0))
    save_episode(ledger, episode("other", "promoted", 2000.0))
    assert read_recent(ledger, MODEL, [1], "asks").regime == 1000.0
    with pytest.raises(CannotTrainError, match="knows no such episode"):
        read_recent(ledger, MODEL, [1], "nobody")


def test_what_a_client_sent_wrongly_stops_no_training(ledger: Ledger) -> None:
    predicted(ledger, 1000.0, labelled=50)
    predicted(ledger, 2000.0, labelled=50, machine_failure=7)
    predicted(ledger, 3000.0, labelled=50, type="X")
    predicted(ledger, 4000.0, labelled=50, torque=-5.0)
    rows = read_recent(ledger, MODEL, [1], None).rows
    assert len(rows) == 50
    assert set(np.unique(rows.target)) <= {0.0, 1.0}


def test_only_the_newest_labelled_rows_are_read(ledger: Ledger) -> None:
    split = msgspec.structs.replace(MODEL.split, recent_rows=30, reference_rows=10)
    model = msgspec.structs.replace(MODEL, split=split)
    predicted(ledger, 1000.0, labelled=50)
    predicted(ledger, 2000.0, labelled=20)
    rows = read_recent(ledger, model, [1], None).rows
    assert (~np.isnan(rows.target)).sum() == 30
    assert len(rows) == 40
    assert {int(key[:16], 16) for key in rows.key} == {1000, 2000}
    assert min(int(key[16:], 16) for key in rows.key if int(key[:16], 16) == 1000) == 40


def test_of_large_requests_only_as_many_are_read_as_the_reference_has_rows(ledger: Ledger) -> None:
    split = msgspec.structs.replace(MODEL.split, reference_rows=250)
    table = milling.pieces(100)
    inputs = {name: table[name].tolist() for name in milling.MEASURED}
    sent = [
        Prediction(f"{n:032x}", 1, MODEL.name, 1, "http", "t", 1000.0 + n, 0.1, "OK", 100, inputs)
        for n in range(10)
    ]
    ship(ledger, sent, [], SpoolState("spool", MODEL.name, 1, 2000.0))
    rows = read_recent(ledger, msgspec.structs.replace(MODEL, split=split), [1], None).rows
    assert {int(key, 16) for key in rows.key} == {7, 8, 9}
