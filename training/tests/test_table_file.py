"""A CSV file is read as the table of a database, and nothing in it is guessed."""

from pathlib import Path

import pytest
from sqlalchemy import text

from watchkeeper.training import CannotTrainError
from watchkeeper.training.database import transaction
from watchkeeper.training.table_file import read_header


def table(folder: Path, content: str | bytes, name: str = "readings.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def query(path: Path, statement: str) -> list[tuple[object, ...]]:
    with transaction(f"csv:///{path}", "read") as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def test_integers_numbers_and_texts_have_their_types(tmp_path: Path) -> None:
    path = table(tmp_path, "a,b,c,code\n1,0.5,x,007\n-2,3,,010\n,1e3,y,1\n")
    assert query(path, "SELECT * FROM readings") == [
        (1, 1, 0.5, "x", "007"),
        (2, -2, 3.0, None, "010"),
        (3, None, 1000.0, "y", "1"),
    ]


@pytest.mark.parametrize("cell", ["nan", "inf", "1_000", "0x10", "1,5", "n/a", "9" * 30])
def test_a_cell_that_is_no_plain_number_stays_as_it_is(tmp_path: Path, cell: str) -> None:
    path = table(tmp_path, f'a\n1\n"{cell}"\n')
    values = [value for (value,) in query(path, "SELECT a FROM readings")]
    assert values in (["1", cell], [1.0, 1e30])


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffpump id,flow [l/min]\r\n1,2\r\n",
        'pump id;flow [l/min]\n1;"2"\n',
        "pump id\tflow [l/min]\n1\t2\n",
        "pump id, flow [l/min]\n 1 , 2 \n\n",
    ],
)
def test_byte_order_marks_delimiters_and_spaces_are_understood(
    tmp_path: Path, content: str
) -> None:
    path = table(tmp_path, content)
    assert read_header(path) == ("pump id", "flow [l/min]")
    assert query(path, 'SELECT "pump id", "flow [l/min]" FROM readings') == [(1, 2)]


def test_a_file_with_row_numbers_keeps_its_own(tmp_path: Path) -> None:
    path = table(tmp_path, "row_id,a\n7,1\n9,2\n")
    assert query(path, "SELECT row_id FROM readings") == [(7,), (9,)]


def test_a_column_without_a_name_gets_one(tmp_path: Path) -> None:
    assert read_header(table(tmp_path, ",a\n0,1\n")) == ("column_1", "a")


REFUSED = {
    "missing": (None, "No such file or directory"),
    "empty": ("", "the file is empty; its first line must name the columns"),
    "twice": ("a,A\n1,2\n", "two columns are named 'a'"),
    "ragged": ("a,b\n1,2\n1\n", "row 2 has 1 cells, and the first line names 2 columns"),
    "encoding": (b"a\n\xe9\n", "is not text in UTF-8"),
    "quotes": ('a,b\n"1"2,3\n', "line 2: "),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_file_that_is_no_table_is_refused_with_the_place(tmp_path: Path, what: str) -> None:
    content, message = REFUSED[what]
    path = tmp_path / "readings.csv" if content is None else table(tmp_path, content)
    with pytest.raises(CannotTrainError) as refused:
        query(path, "SELECT * FROM readings")
    assert str(refused.value).startswith(f"{path}: ")
    assert message in str(refused.value)


def test_a_query_for_another_table_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path, "a\n1\n")
    with pytest.raises(CannotTrainError, match="no such table: pumps"):
        query(path, "SELECT * FROM pumps")
