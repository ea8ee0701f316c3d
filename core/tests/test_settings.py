"""Settings from variables and files."""

from pathlib import Path

import msgspec
import pytest

from watchkeeper.core.settings import SettingsError, read_settings


class Example(msgspec.Struct):
    port: int
    token: str = "none"
    models: tuple[str, ...] = ()
    folder: Path = Path()


def test_settings_are_read_from_variables_and_files(tmp_path: Path) -> None:
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
def test_the_error_names_the_invalid_variable(environ: dict[str, str]) -> None:
    wrong = list(environ)[-1] if environ else "WATCHKEEPER_PORT"
    with pytest.raises(SettingsError, match=wrong):
        read_settings(Example, environ)


def test_any_setting_can_be_a_file_and_errors_do_not_contain_its_content(tmp_path: Path) -> None:
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
