"""Signed prediction ids."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchkeeper.core import prediction_id

KEY = b"a key of a test"


REQUEST = "0123456789abcdef" * 2


@settings(deadline=None)
@given(st.integers(1, 10**9), st.floats(0, 4e9), st.booleans())
def test_a_prediction_id_is_valid_for_its_model_and_key_only(
    version: int, time: float, synthetic: bool
) -> None:
    made = prediction_id.PredictionId(REQUEST, version, 12, time, synthetic)
    text = prediction_id.sign(KEY, "m", made)
    read = prediction_id.verify(KEY, "m", text)
    assert (read.request, read.version, read.rows) == (REQUEST, version, 12)
    assert read.synthetic == synthetic
    assert abs(read.time - time) < 0.001
    assert prediction_id.request_of(text) == REQUEST
    with pytest.raises(prediction_id.InvalidPredictionIdError):
        prediction_id.verify(KEY, "other", text)
    with pytest.raises(prediction_id.InvalidPredictionIdError):
        prediction_id.verify(b"another key", "m", text)


def test_the_mark_of_a_synthetic_request_is_signed() -> None:
    made = prediction_id.PredictionId(REQUEST, 7, 1, 1.7e9, synthetic=True)
    text = prediction_id.sign(KEY, "m", made)
    assert text.count("s-") == 1
    with pytest.raises(prediction_id.InvalidPredictionIdError):
        prediction_id.verify(KEY, "m", text.replace("s-", "-"))


@settings(deadline=None)
@given(st.integers(0, 77), st.sampled_from("0123456789abcdef-sx"))
def test_a_changed_prediction_id_is_refused(place: int, letter: str) -> None:
    text = prediction_id.sign(KEY, "m", prediction_id.PredictionId(REQUEST, 7, 1, 1.7e9))
    changed = text[:place] + letter + text[place + 1 :]
    if changed != text:
        with pytest.raises(prediction_id.InvalidPredictionIdError):
            prediction_id.verify(KEY, "m", changed)
