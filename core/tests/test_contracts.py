"""Names, settings, signatures, answers, ids and sealed folders hold what they promise."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchkeeper.contracts import prediction_id, spool
from watchkeeper.contracts.answer import RISK_LEVELS, AnswerPolicy, Label, Risk, answer, outputs_of
from watchkeeper.contracts.names import (
    InvalidNameError,
    check_model_name,
    model_uri,
    parse_model_uri,
    run_name,
)
from watchkeeper.contracts.policies import DriftPolicy, RolloutPolicy, override
from watchkeeper.contracts.settings import SettingsError, read_settings
from watchkeeper.contracts.signature import Column, Output, Signature
from watchkeeper.contracts.version import (
    BrokenVersionError,
    Head,
    Lineage,
    Manifest,
    read_manifest,
    seal,
)

KEY = b"a key of a test"
REQUEST = "0123456789abcdef" * 2


@pytest.mark.parametrize("name", ["", "A", "a_b", "a.b", "-a", "a-", "1a", "a" * 31, "a/b", "ä"])
def test_a_name_that_no_host_may_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidNameError, match="model name"):
        check_model_name(name)


@settings(deadline=None)
@given(st.from_regex(r"[a-z]([-a-z0-9]{0,28}[a-z0-9])?", fullmatch=True), st.integers(1, 99999))
def test_a_run_of_any_model_fits_a_job_name_and_its_uri_reads_back(name: str, number: int) -> None:
    assert len(run_name(name, number, number)) <= 63
    assert parse_model_uri(model_uri(name, number)) == (name, number)


@pytest.mark.parametrize("uri", ["mlflow://a", "mlflow://a/0", "s3://a/1", "mlflow://a/1/2", "a/1"])
def test_a_uri_without_a_version_number_is_refused(uri: str) -> None:
    with pytest.raises(InvalidNameError):
        parse_model_uri(uri)


class Example(msgspec.Struct):
    port: int
    token: str = "none"
    models: tuple[str, ...] = ()
    folder: Path = Path()


def test_settings_come_from_the_environment_and_secrets_from_files(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hush\n")
    environ = {
        "WATCHKEEPER_PORT": "8080",
        "WATCHKEEPER_TOKEN_FILE": str(tmp_path / "token"),
        "WATCHKEEPER_MODELS": '["a", "b"]',
        "WATCHKEEPER_FOLDER": "/data",
    }
    assert read_settings(Example, environ) == Example(8080, "hush", ("a", "b"), Path("/data"))


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHKEEPER_PORT": "many"},
        {"WATCHKEEPER_PORT": "1", "WATCHKEEPER_MODELS": "a"},
        {"WATCHKEEPER_PORT": "1", "WATCHKEEPER_TOKEN_FILE": "/nowhere"},
    ],
)
def test_a_setting_that_cannot_be_used_is_named(environ: dict[str, str]) -> None:
    wrong = list(environ)[-1] if environ else "WATCHKEEPER_PORT"
    with pytest.raises(SettingsError, match=wrong):
        read_settings(Example, environ)


def test_any_setting_may_be_given_as_a_file_and_its_content_is_never_shown(tmp_path: Path) -> None:
    given = {"PORT": "8080\n", "TOKEN": "7", "MODELS": '["a", "b"]\n', "FOLDER": "/data\n"}
    for name, text in given.items():
        (tmp_path / name).write_text(text)
    environ = {f"WATCHKEEPER_{name}_FILE": str(tmp_path / name) for name in given}
    assert read_settings(Example, environ) == Example(8080, "7", ("a", "b"), Path("/data"))
    for name in ("PORT", "MODELS"):
        (tmp_path / name).write_bytes(b"secret")
        with pytest.raises(SettingsError, match=f"WATCHKEEPER_{name}_FILE=.*/{name}: ") as raised:
            read_settings(Example, environ)
        assert "secret" not in str(raised.value)
        (tmp_path / name).write_bytes(b"\xff")
        with pytest.raises(SettingsError, match=f"WATCHKEEPER_{name}_FILE=.*UTF-8"):
            read_settings(Example, environ)
        (tmp_path / name).write_text(given[name])


def test_an_override_changes_what_it_names_and_refuses_the_rest() -> None:
    assert override(DriftPolicy(), {"window": 100}) == DriftPolicy(window=100)
    with pytest.raises(msgspec.ValidationError, match="unknown field `windw`"):
        override(DriftPolicy(), {"windw": 100})
    with pytest.raises(msgspec.ValidationError, match="must rise"):
        override(RolloutPolicy(), {"steps": [50, 10]})


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
def test_a_signature_that_old_clients_cannot_call_says_why(
    inputs: tuple[Column, ...], outputs: tuple[Output, ...], problem: str
) -> None:
    (said,) = Signature(inputs, outputs).accepts_all_of(OLD)
    assert problem in said


def test_a_wider_signature_still_takes_old_clients() -> None:
    wider = Signature(
        (Column("x", "FP64"), Column("t", "BYTES", categories=("H", "L", "M"))),
        (*OLD.outputs, Output("q", "INT64")),
    )
    assert wider.accepts_all_of(OLD) == []


POLICY = AnswerPolicy((Label("failure", "p", 0.5),), Risk("p", medium=0.2, high=0.6))


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1))
def test_label_and_risk_follow_the_score(values: list[float]) -> None:
    outputs = answer({"p": np.array(values)}, POLICY)
    assert [output.name for output in outputs_of(("p",), POLICY)] == list(outputs)
    for score, label, risk in zip(values, outputs["failure"], outputs["risk_level"], strict=True):
        assert label == (score >= 0.5)
        assert risk == RISK_LEVELS[(score >= 0.2) + (score >= 0.6)]


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1))
def test_a_hidden_score_is_no_output_but_still_there_to_be_recorded(values: list[float]) -> None:
    odd = Label("odd", "normality", threshold=0.0, side="below")
    policy = AnswerPolicy((odd,), POLICY.risk, hidden=("normality",))
    scores = {"p": np.full(len(values), 0.1), "normality": np.array(values)}
    outputs = answer(scores, policy)
    assert [o.name for o in outputs_of(("p", "normality"), policy)] == ["p", "odd", "risk_level"]
    assert outputs["normality"].tolist() == values
    assert outputs["odd"].tolist() == [int(value < 0.0) for value in values]


@settings(deadline=None)
@given(st.integers(1, 10**9), st.floats(0, 4e9))
def test_a_prediction_id_reads_back_and_only_for_its_model(version: int, time: float) -> None:
    text = prediction_id.sign(KEY, "m", prediction_id.PredictionId(REQUEST, version, 12, time))
    read = prediction_id.verify(KEY, "m", text)
    assert (read.request, read.version, read.rows) == (REQUEST, version, 12)
    assert abs(read.time - time) < 0.001
    assert prediction_id.request_of(text) == REQUEST
    with pytest.raises(prediction_id.InvalidPredictionIdError):
        prediction_id.verify(KEY, "other", text)
    with pytest.raises(prediction_id.InvalidPredictionIdError):
        prediction_id.verify(b"another key", "m", text)


@settings(deadline=None)
@given(st.integers(0, 77), st.sampled_from("0123456789abcdef-x"))
def test_a_prediction_id_changed_in_one_place_is_refused(place: int, letter: str) -> None:
    text = prediction_id.sign(KEY, "m", prediction_id.PredictionId(REQUEST, 7, 1, 1.7e9))
    changed = text[:place] + letter + text[place + 1 :]
    if changed != text:
        with pytest.raises(prediction_id.InvalidPredictionIdError):
            prediction_id.verify(KEY, "m", changed)


def _manifest() -> Manifest:
    return Manifest(
        model="m",
        signature=OLD,
        heads=(Head("p", "p.skops", "predict_proba"),),
        answer=POLICY,
        drift=DriftPolicy(),
        rollout=RolloutPolicy(),
        lineage=Lineage("run", "hash", 1, 0, "1", {}, "test", 0.0),
    )


def test_a_sealed_folder_reads_back_and_an_altered_one_does_not(tmp_path: Path) -> None:
    (tmp_path / "p.skops").write_bytes(b"pipeline")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_bytes(b"more")
    sealed = seal(tmp_path, _manifest())
    assert set(sealed.files) == {"p.skops", "sub/file"}
    assert read_manifest(tmp_path) == sealed
    (tmp_path / "sub" / "file").write_bytes(b"other")
    with pytest.raises(BrokenVersionError, match=r"sub/file.*SHA-256"):
        read_manifest(tmp_path)
    (tmp_path / "sub" / "file").unlink()
    with pytest.raises(BrokenVersionError, match="missing"):
        read_manifest(tmp_path)


def test_a_folder_without_a_manifest_is_no_version(tmp_path: Path) -> None:
    with pytest.raises(BrokenVersionError, match=r"manifest\.json"):
        read_manifest(tmp_path)


def test_a_spool_has_one_identity_whoever_asks_first(tmp_path: Path) -> None:
    assert spool.identity(tmp_path) == spool.identity(tmp_path)
    spool.segment_path(tmp_path, 12).touch()
    spool.segment_path(tmp_path, 3).touch()
    assert spool.segments(tmp_path) == [3, 12]
