"""Lines of a spool read back as the records that were written."""

import msgspec
import pytest
from batches import batch_of
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.core.record import Batch, BatchedRequest, Gap, Prediction, decode_line

values = st.lists(
    st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3), min_size=1, max_size=3
)
names = st.text("0123456789abcdef", min_size=32, max_size=32)
predictions = st.builds(
    lambda made, inputs: msgspec.structs.replace(
        made, rows=len(inputs), inputs={"x": inputs, "y": inputs[::-1]}, outputs={"p": inputs}
    ),
    st.builds(
        Prediction,
        id=names,
        attempt=st.integers(1, 9),
        model=st.just("m"),
        version=st.just(7),
        latency=st.floats(0, 10),
        time=st.floats(0, 2e9),
        status=st.just("OK"),
        rows=st.just(0),
        inputs=st.just({}),
        outputs=st.just({}),
        error=st.none(),
        flags=st.lists(st.text(max_size=5), max_size=2),
        synthetic=st.booleans(),
    ),
    values,
)


@given(st.lists(predictions, min_size=1, max_size=4))
def test_a_batch_has_the_same_predictions_as_single_lines(made: list[Prediction]) -> None:
    assert decode_line(msgspec.json.encode(batch_of(made))) == made
    assert [record for one in made for record in decode_line(msgspec.json.encode(one))] == made


@given(predictions)
def test_lines_of_a_release_without_synthetic_requests_are_not_synthetic(made: Prediction) -> None:
    batch = msgspec.to_builtins(batch_of([made]))
    batch["answered"] = [request[:-1] for request in batch["answered"]]
    single = msgspec.to_builtins(made)
    single.pop("synthetic", None)
    for line in (batch, single):
        (read,) = decode_line(msgspec.json.encode(line))
        assert read == msgspec.structs.replace(made, synthetic=False)


@pytest.mark.parametrize("part", ["inputs", "outputs"])
def test_a_batch_with_columns_of_wrong_length_is_refused(part: str) -> None:
    answered = [BatchedRequest("0" * 32, 1, "http", "c", 1.0, 0.1, 2, [], "")]
    whole = Batch("m", 7, answered, {"x": [[1, 2]]}, {"p": [0.1, 0.2]})
    short = msgspec.structs.replace(whole, **{part: {"x": []}})
    none = msgspec.structs.replace(whole, answered=[msgspec.structs.replace(answered[0], rows=0)])
    assert len(decode_line(msgspec.json.encode(whole))) == 1
    for odd in (short, none):
        with pytest.raises(msgspec.ValidationError, match=r"do not fit 1 requests, [02] rows"):
            decode_line(msgspec.json.encode(odd))


@pytest.mark.parametrize("old", [b'"kind"', b'"",false]'])
def test_unknown_fields_of_a_later_release_are_skipped(old: bytes) -> None:
    answered = [BatchedRequest("0" * 32, 1, "http", "c", 1.0, 0.1, 1, [], "")]
    whole = Batch("m", 7, answered, {"x": [[1]]}, {})
    for record in (whole, *whole.predictions(), Gap("m", 7, 3, 1.0, 2.0)):
        line = msgspec.json.encode(record)
        new = {b'"kind"': b'"later":1,"kind"', b'"",false]': b'"",false,"later"]'}
        later = line.replace(old, new[old])
        assert decode_line(later) == decode_line(line)


@pytest.mark.parametrize("line", [b'{"kind":"\xff"}', b"[" * 100_000, b"{}", b"", b"\xff"])
def test_damaged_lines_are_refused(line: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_line(line)
