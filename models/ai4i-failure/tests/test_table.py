"""The published table, in the forms in which it is distributed."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ai4i_failure.plant import PLANT
from ai4i_failure.plant.machines import MEASUREMENTS, Fleet
from ai4i_failure.plant.scenarios import SCENARIOS, STEADY, apply
from ai4i_failure.plant.table import TableError, TableRows, read_table

HEADER = (
    "UDI,Product ID,Type,Air temperature [K],Process temperature [K],Rotational speed [rpm],"
    "Torque [Nm],Tool wear [min],Machine failure"
)
FINE = "1,M14860,M,298.1,308.6,1551,42.8,0,0"
OVERSTRAINED = "2,L47181,L,298.2,308.7,1408,66.3,191,1"
WORN_OUT = "3,L47182,L,298.1,308.5,1498,40.0,210,1"


def write(folder: Path, *lines: str, mark: str = "") -> Path:
    path = folder / "table.csv"
    path.write_text(mark + "\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("modes", [False, True])
def test_the_published_forms_are_read_alike(tmp_path: Path, mark: str, modes: bool) -> None:
    names, zeros = (",TWF,HDF,PWF,OSF,RNF", ",0,0,0,0,0") if modes else ("", "")
    path = write(tmp_path, HEADER + names, FINE + zeros, OVERSTRAINED + zeros, mark=mark)
    table = read_table(path)
    assert table["machine"].tolist() == ["M14860", "L47181"]
    assert [table[name].tolist() for name in MEASUREMENTS] == [
        ["M", "L"],
        [298.1, 298.2],
        [308.6, 308.7],
        [1551, 1408],
        [42.8, 66.3],
        [0, 191],
    ]
    assert table["machine_failure"].tolist() == [0, 1]


def test_a_failure_that_no_rule_explains_was_the_tools_end(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, HEADER, FINE, OVERSTRAINED, WORN_OUT))
    assert table["tool_failed"].tolist() == [False, False, True]


def test_columns_can_be_in_another_order_and_without_units_or_number(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "Machine failure,torque,Type,Product ID,tool_wear,Air temperature,"
        " Process temperature [K] ,ROTATIONAL SPEED [rpm]",
        "1,66.3,L,L1,191,298.2,308.7,1408",
    )
    assert read_table(path)["torque"].tolist() == [66.3]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "no column product_id, type"),
        ([HEADER], "no rows"),
        ([HEADER.replace("Torque [Nm]", "Moment [Nm]"), FINE], "no column torque"),
        ([HEADER.replace("Torque [Nm]", "Torque [lbf ft]"), FINE], "must be in Nm"),
        ([HEADER + ",Torque [Nm]", FINE + ",1"], "twice"),
        ([HEADER, FINE, FINE.replace("42.8", "much")], "line 3: torque is 'much'"),
        ([HEADER, FINE.replace("42.8", "nan")], "torque is 'nan', expected a finite number"),
        ([HEADER, FINE.replace("42.8", "")], "torque is ''"),
        ([HEADER, FINE.replace(",M,", ",X,")], "type is 'X', expected L, M or H"),
        ([HEADER, FINE[:-1] + "2"], "machine_failure is '2', expected 0 or 1"),
        ([HEADER, "1,M14860,M,298.1"], "line 2: has 4 columns"),
    ],
)
def test_another_table_is_refused_with_the_place(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    with pytest.raises(TableError, match=f"table.csv.*{message}"):
        read_table(write(tmp_path, *lines))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="cannot be read"):
        read_table(tmp_path / "none.csv")


def as_table(folder: Path, rows: int) -> Path:
    """Machines' readings written as the published table is."""
    drawn = apply(Fleet(seed=4).readings(rows), STEADY)
    columns = [drawn[name].tolist() for name in (*MEASUREMENTS, "machine_failure")]
    lines = [
        f"{number},P{number}," + ",".join(map(str, values))
        for number, values in enumerate(zip(*columns, strict=True), start=1)
    ]
    return write(folder, HEADER, *lines)


def test_every_row_is_drawn_before_any_is_drawn_again(tmp_path: Path) -> None:
    table = read_table(as_table(tmp_path, 100))
    source = TableRows(table, seed=1)
    drawn = [name for rows in (30, 50, 120) for name in source.readings(rows)["machine"]]
    assert set(Counter(drawn).values()) == {2}
    assert drawn[:100] != table["machine"].tolist()


def test_labels_of_undrifted_rows_are_those_of_the_table(tmp_path: Path) -> None:
    table = read_table(as_table(tmp_path, 5000))
    assert np.array_equal(apply(table, STEADY)["machine_failure"], table["machine_failure"])


def test_the_drift_of_the_demo_applies_to_a_table_too(tmp_path: Path) -> None:
    rows = TableRows(read_table(as_table(tmp_path, 5000)), seed=1).readings(5000)
    assert 0.15 <= apply(rows, SCENARIOS[PLANT.drift])["machine_failure"].mean() <= 0.25
