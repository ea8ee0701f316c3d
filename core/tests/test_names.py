"""Names and URIs of models, versions and runs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchkeeper.core.names import (
    InvalidNameError,
    adoption_run_name,
    check_model_name,
    model_uri,
    next_run_name,
    next_try,
    parse_model_uri,
    parse_registered,
    registered_uri,
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


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("models:/churn/12", ("churn", 12, "")),
        ("models:/Churn of others/1", ("Churn of others", 1, "")),
        ("models:/churn@champion", ("churn", 0, "champion")),
    ],
)
def test_uris_of_mlflow_are_read(uri: str, expected: tuple[str, int, str]) -> None:
    assert parse_registered(uri) == expected
    if expected[1]:
        assert registered_uri(*expected[:2]) == uri


@pytest.mark.parametrize(
    "uri",
    [
        *("churn/12", "models:/churn", "models:/churn/0", "models:/churn/x", "models:/a/b/1"),
        *("models:/a' or '1/1", "runs:/1/model", "models:/churn@", "models:/churn/1/"),
    ],
)
def test_what_names_no_version_of_mlflow_is_refused(uri: str) -> None:
    with pytest.raises(InvalidNameError, match="expected models:/<name>/<version>"):
        parse_registered(uri)


def test_a_version_is_adopted_by_runs_with_one_name_each() -> None:
    name = adoption_run_name("churn", "models:/churn/1 created 5.0")
    assert name != adoption_run_name("churn", "models:/churn/1 created 6.0")
    assert next_try(name, []) == name
    assert next_try(name, [name, f"{name}-r2", "other"]) == f"{name}-r3"
