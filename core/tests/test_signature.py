"""Which signatures old clients can use."""

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
