"""Lines of a spool say what was written, of one request or of a round."""

import msgspec
import pytest
from a_round import together
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.contracts.record import Answered, Gap, Prediction, Round, decode_line

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
    ),
    values,
)


@given(st.lists(predictions, min_size=1, max_size=4))
def test_a_round_says_of_each_request_what_its_own_line_would_say(made: list[Prediction]) -> None:
    assert decode_line(msgspec.json.encode(together(made))) == made
    assert [record for one in made for record in decode_line(msgspec.json.encode(one))] == made


@pytest.mark.parametrize("part", ["inputs", "outputs"])
def test_a_round_whose_columns_are_of_another_length_is_no_record(part: str) -> None:
    answered = [Answered("0" * 32, 1, "http", "c", 1.0, 0.1, 2, [], "")]
    whole = Round("m", 7, answered, {"x": [[1, 2]]}, {"p": [0.1, 0.2]})
    short = msgspec.structs.replace(whole, **{part: {"x": []}})
    none = msgspec.structs.replace(whole, answered=[msgspec.structs.replace(answered[0], rows=0)])
    assert len(decode_line(msgspec.json.encode(whole))) == 1
    for odd in (short, none):
        with pytest.raises(msgspec.ValidationError, match=r"do not fit 1 requests, [02] rows"):
            decode_line(msgspec.json.encode(odd))


@pytest.mark.parametrize("old", [b'"kind"', b'""]'])
def test_a_line_with_fields_of_a_later_release_is_read(old: bytes) -> None:
    answered = [Answered("0" * 32, 1, "http", "c", 1.0, 0.1, 1, [], "")]
    whole = Round("m", 7, answered, {"x": [[1]]}, {})
    for record in (whole, *whole.predictions(), Gap("m", 7, 3, 1.0, 2.0)):
        line = msgspec.json.encode(record)
        later = line.replace(old, {b'"kind"': b'"later":1,"kind"', b'""]': b'"","later"]'}[old])
        assert decode_line(later) == decode_line(line)


@pytest.mark.parametrize("line", [b'{"kind":"\xff"}', b"[" * 100_000, b"{}", b"", b"\xff"])
def test_what_a_disk_has_spoiled_is_no_record(line: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_line(line)
