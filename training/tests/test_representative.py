"""A reference is representative: who dominates, is stuck or was called broken is left out."""

from collections import Counter
from collections.abc import Callable

import msgspec
import numpy as np
import pandas as pd
import pumps
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchkeeper.training.models import find
from watchkeeper.training.representative import (
    BrokenColumn,
    Request,
    Selection,
    select_typical,
)
from watchkeeper.training.rows import Rows
from watchkeeper.training.usable import usable

MODEL = find("pump-failure")
HISTORY = usable(pumps.readings(10_000).set_index("id"), MODEL, "a test")
SHARE = MODEL.split.max_share


class Traffic:
    """Recent rows and who sent them; one row a second, each a request of its own by default."""

    def __init__(self) -> None:
        self.tables: list[pd.DataFrame] = []
        self.keys: list[str] = []
        self.requests: dict[str, Request] = {}
        self.now = 0.0

    def send(
        self,
        table: pd.DataFrame,
        client: str = "line",
        subject: Callable[[int], str] = lambda _: "",
        *,
        each: int = 1,
        seconds: float = 1.0,
    ) -> "Traffic":
        self.tables.append(table)
        for number in range(len(table)):
            if number % each == 0:
                key = f"{len(self.requests):032x}"
                self.requests[key] = Request(self.now, client, subject(number))
            self.now += seconds
            self.keys.append(key)
        return self

    @property
    def rows(self) -> Rows:
        table = pd.concat(self.tables, ignore_index=True)
        return usable(table.set_index(pd.Index(self.keys)), MODEL, "a test")

    def select(self, *broken: BrokenColumn, max_share: float = SHARE) -> Selection:
        split = msgspec.structs.replace(MODEL.split, max_share=max_share)
        model = msgspec.structs.replace(MODEL, split=split)
        return select_typical(HISTORY, self.rows, self.requests, broken, model)

    def stay_by(self, who: Callable[[Request], str]) -> Counter[str]:
        """Return the numbers of rows that stay, by client or subject."""
        rows = self.select().rows
        stay = rows.typical.any(axis=1)
        return Counter(who(self.requests[key]) for key in rows.key[stay])


def client(request: Request) -> str:
    return request.client


def one_payload(count: int) -> pd.DataFrame:
    return pd.concat([pumps.readings(1, seed=9)] * count, ignore_index=True)


def test_nothing_is_left_out_of_balanced_traffic() -> None:
    found = Traffic().send(pumps.readings(3000, seed=1)).select()
    assert found.left_out == {}
    assert found.rows.typical.all()


@pytest.mark.parametrize("machines", [1, 2, 3, 40])
def test_nothing_is_left_out_where_machines_send_in_turn(machines: int) -> None:
    traffic = Traffic().send(pumps.readings(3000, seed=1), subject=lambda n: f"m{n % machines}")
    assert traffic.select().left_out == {}


@pytest.mark.parametrize("machines", [1, 2, 3, 40])
def test_nothing_is_left_out_where_machines_send_one_after_the_other(machines: int) -> None:
    traffic = Traffic()
    for number in range(machines):
        table = pumps.readings(3000 // machines, seed=number)
        traffic.send(table, client=f"c{number}", subject=lambda _, m=number: f"m{m}")  # type: ignore[misc]
    assert traffic.select().left_out == {}


def test_nothing_is_left_out_of_a_client_that_always_sends_most_rows() -> None:
    traffic = Traffic()
    for number in range(100):
        traffic.send(pumps.readings(27, seed=number), client="main")
        traffic.send(pumps.readings(3, seed=1000 + number), client=f"other {number % 3}")
    assert traffic.select().left_out == {}


def test_nothing_is_left_out_of_nightly_batches_of_about_the_same_size() -> None:
    traffic = Traffic()
    for number in range(4):
        traffic.send(pumps.readings(700 + 50 * number, seed=number), each=10_000)
    assert traffic.select().left_out == {}


def test_nothing_is_left_out_of_few_rows() -> None:
    for count in (2, 3, 9):
        assert Traffic().send(pumps.readings(count, seed=1)).select().left_out == {}


def test_a_single_payload_describes_nothing() -> None:
    assert Traffic().send(pumps.readings(1)).select().left_out == {"payload": 1}


def test_a_load_test_of_one_payload_is_left_out() -> None:
    traffic = Traffic().send(one_payload(14_000), each=14_000, seconds=0.0)
    found = traffic.select()
    assert not found.rows.typical.any()
    assert sum(found.left_out.values()) == 14_000


@pytest.mark.parametrize("clients", [("line", "line"), ("line", "k6")])
def test_a_load_test_among_other_requests_does_not_dominate(clients: tuple[str, str]) -> None:
    traffic = Traffic().send(pumps.readings(2000, seed=1), client=clients[0])
    traffic.send(one_payload(6000), client=clients[1], seconds=0.001)
    traffic.send(pumps.readings(2000, seed=2), client=clients[0])
    rows = traffic.select().rows
    stay = rows.typical.any(axis=1)
    repeated = (rows.columns == rows.columns.iloc[3000]).all(axis=1).to_numpy()
    assert not stay[repeated & stay].sum() > SHARE * stay.sum() + 1
    assert stay[~repeated].all(), "ordinary rows stay"


def test_a_client_that_is_there_for_some_of_the_time_does_not_dominate() -> None:
    traffic = Traffic().send(pumps.readings(1000, seed=1), client="line")
    traffic.send(pumps.readings(20_000, seed=2), client="k6", seconds=0.001)
    for number in range(20):
        traffic.send(pumps.readings(100, seed=50 + number), client="line" if number % 2 else "lab")
    stay = traffic.stay_by(client)
    assert (stay["line"], stay["lab"]) == (2000, 1000)
    assert 0 < stay["k6"] < 0.5 * sum(stay.values())


def test_a_request_does_not_dominate() -> None:
    traffic = Traffic().send(pumps.readings(2000, seed=1))
    traffic.send(pumps.readings(5000, seed=2), each=5000)
    found = traffic.select()
    stay = found.rows.typical.any(axis=1)
    assert found.left_out.keys() == {"request"}
    assert stay[:2000].all()
    assert stay[2000:].sum() == pytest.approx(SHARE * stay.sum(), abs=2)
    gaps = np.diff(np.flatnonzero(stay[2000:]))
    assert gaps.max() - gaps.min() <= 1, "what stays is even in time"


def test_a_subject_does_not_dominate_and_rows_without_a_subject_are_nobodys() -> None:
    traffic = Traffic().send(pumps.readings(2000, seed=1), subject=lambda n: f"m{n % 50}")
    traffic.send(pumps.readings(4000, seed=2), subject=lambda _: "m50", seconds=0.01)
    traffic.send(pumps.readings(2000, seed=3))
    traffic.send(pumps.readings(2000, seed=4), subject=lambda n: f"m{n % 50}")
    stay = traffic.stay_by(lambda request: request.subject)
    assert stay["m50"] < 0.15 * sum(stay.values())
    assert stay[""] == 2000


def test_without_a_limit_no_share_is_too_large() -> None:
    traffic = Traffic().send(pumps.readings(500, seed=1))
    traffic.send(pumps.readings(5000, seed=2), client="k6", each=5000)
    assert traffic.select(max_share=1.0).left_out == {}


def test_rows_that_are_equal_in_the_history_too_are_ordinary() -> None:
    often = pd.concat([pumps.readings(1, seed=9)] * 4000 + [pumps.readings(6000)])
    mixed = often.sample(frac=1.0, random_state=1).reset_index(drop=True)
    history = usable(mixed, MODEL, "a test")
    recent = Traffic().send(mixed[:3000])
    rows = recent.rows
    assert select_typical(history, rows, recent.requests, (), MODEL).left_out == {}


def test_a_stuck_column_is_left_out_and_the_other_columns_stay() -> None:
    table = pumps.readings(3000, seed=1)
    table.loc[1000:1999, "load"] = 41.5
    found = Traffic().send(table).select()
    place = MODEL.names.index("load")
    assert found.left_out == {"stuck": 1000}
    assert not found.rows.typical[1000:2000, place].any()
    assert np.delete(found.rows.typical, place, axis=1).all()


def test_what_the_watch_called_broken_is_left_out_in_its_window() -> None:
    traffic = Traffic().send(pumps.readings(3000, seed=1))
    broken = BrokenColumn("wear", 500.0, 999.0), BrokenColumn("another", 0.0, 9999.0)
    found = traffic.select(*broken)
    expected = np.ones(found.rows.typical.shape, dtype=bool)
    expected[500:1000, MODEL.names.index("wear")] = False
    assert found.left_out == {"broken": 500}
    assert (found.rows.typical == expected).all()


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 400), st.sampled_from(["a", "b", "c"]), st.booleans()),
        min_size=1,
        max_size=6,
    )
)
def test_the_selection_is_deterministic_and_finds_nothing_more_in_its_result(
    parts: list[tuple[int, str, bool]],
) -> None:
    traffic = Traffic()
    for seed, (count, name, same) in enumerate(parts):
        table = one_payload(count) if same else pumps.readings(count, seed=seed)
        traffic.send(table, client=name)
    first, again = traffic.select(), traffic.select()
    assert (first.rows.typical == again.rows.typical).all()
    assert first.left_out == again.left_out
