"""Names and URIs of models, versions and runs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchkeeper.core.names import (
    InvalidNameError,
    check_model_name,
    model_uri,
    next_run_name,
    parse_model_uri,
    run_name,
)


@pytest.mark.parametrize("name", ["", "A", "a_b", "a.b", "-a", "a-", "1a", "a" * 31, "a/b", "ä"])
def test_invalid_model_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidNameError, match="model name"):
        check_model_name(name)


@settings(deadline=None)
@given(st.from_regex(r"[a-z]([-a-z0-9]{0,28}[a-z0-9])?", fullmatch=True), st.integers(1, 99999))
def test_run_names_fit_a_job(name: str, number: int) -> None:
    assert len(run_name(name, number, number)) <= 63


@settings(deadline=None)
@given(
    st.from_regex(r"[a-z]([-a-z0-9]{0,28}[a-z0-9])?", fullmatch=True),
    st.integers(1, 99999),
    st.just("") | st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
)
def test_uris_read_back(name: str, number: int, digest: str) -> None:
    assert parse_model_uri(model_uri(name, number, digest)) == (name, number, digest)


@pytest.mark.parametrize(
    "uri",
    [
        *("mlflow://a", "mlflow://a/0", "s3://a/1", "mlflow://a/1/2", "a/1", "mlflow://a/1/"),
        *(f"mlflow://a/1/{'A' * 64}", f"mlflow://a/1/{'a' * 63}", f"mlflow://a/1/{'a' * 64}/b"),
    ],
)
def test_uris_without_a_version_number_are_refused(uri: str) -> None:
    with pytest.raises(InvalidNameError):
        parse_model_uri(uri)


def test_run_numbers_rise_above_all_used_numbers() -> None:
    assert next_run_name("m", 1, []) == "m-v1-a1"
    assert next_run_name("m", 1, ["m-v1-a2", "m-v1-a10", "m-v2-a11", "m-v11-a12"]) == "m-v1-a11"
    assert next_run_name("m", 1, ["m-v1-ab", "m-v1-a-3"]) == "m-v1-a1"
