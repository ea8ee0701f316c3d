"""Which signatures old clients can use, and what a missing value is."""

import msgspec
import numpy as np
import pytest

from watchkeeper.core.signature import Column, Output, Signature

OLD = Signature(
    (Column("t", "BYTES", categories=("L", "M")), Column("x", "FP64", minimum=0, maximum=9)),
    (Output("p", "FP64"),),
)


@pytest.mark.parametrize(
    ("inputs", "outputs", "problem"),
    [
        (OLD.inputs[1:], OLD.outputs, "input 't' is gone"),
        ((*OLD.inputs, Column("z", "FP64")), OLD.outputs, "input 'z' is new"),
        ((OLD.inputs[0], Column("x", "INT64")), OLD.outputs, "was FP64"),
        ((OLD.inputs[0], Column("x", "FP64", minimum=1)), OLD.outputs, "narrower"),
        ((Column("t", "BYTES", categories=("L",)), OLD.inputs[1]), OLD.outputs, "lost categories"),
        (OLD.inputs, (), "output 'p' is gone"),
    ],
)
def test_incompatible_signatures_are_refused_with_the_reason(
    inputs: tuple[Column, ...], outputs: tuple[Output, ...], problem: str
) -> None:
    (said,) = Signature(inputs, outputs).incompatibilities(OLD)
    assert problem in said


def test_a_wider_signature_is_compatible() -> None:
    wider = Signature(
        (Column("x", "FP64"), Column("t", "BYTES", categories=("H", "L", "M"))),
        (*OLD.outputs, Output("q", "INT64")),
    )
    assert wider.incompatibilities(OLD) == []


def test_a_column_that_may_be_missing_now_is_compatible_and_the_reverse_is_not() -> None:
    nullable = tuple(msgspec.structs.replace(column, nullable=True) for column in OLD.inputs)
    wider = Signature(nullable, OLD.outputs)
    assert wider.incompatibilities(OLD) == []
    assert OLD.incompatibilities(wider) == [
        "input 't' is no longer nullable",
        "input 'x' is no longer nullable",
    ]


def test_a_column_of_an_old_manifest_has_all_values() -> None:
    column = msgspec.json.decode(b'{"name": "x", "datatype": "FP64"}', type=Column)
    assert not column.nullable


def test_integers_and_the_empty_category_cannot_be_nullable() -> None:
    with pytest.raises(ValueError, match=r"column 'n': INT64 has no missing value.*FP64"):
        Column("n", "INT64", nullable=True)
    with pytest.raises(ValueError, match="column 't': the empty text is the missing value"):
        Column("t", "BYTES", categories=("", "L"), nullable=True)


@pytest.mark.parametrize(
    ("column", "given", "missing"),
    [
        (Column("x", "FP64", nullable=True), [1.5, None], [False, True]),
        (Column("t", "BYTES", categories=("L",), nullable=True), ["L", None], [False, True]),
        (Column("t", "BYTES", categories=("L", "")), ["L", ""], [False, False]),
        (Column("n", "INT64"), [1, 2**60], [False, False]),
    ],
)
def test_values_survive_the_way_from_json_and_back(
    column: Column, given: list[object], missing: list[bool]
) -> None:
    values = column.array(given)
    assert column.missing(values).tolist() == missing
    assert column.listed(values) == given
    assert column.knows(values).all()


def test_a_missing_value_is_not_known_where_it_may_not_be() -> None:
    assert Column("x", "FP64").knows(np.array([1.0, np.nan])).tolist() == [True, False]
    text = np.array(["L", "", "X"], dtype=object)
    assert Column("t", "BYTES", categories=("L",)).knows(text).tolist() == [True, False, False]
