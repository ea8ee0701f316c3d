"""Every setting of a component comes from the system or from the user.

Every setting of the user is on the reference page, with its default.
"""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from watchkeeper.cli.local_programs import describe, rollout_program
from watchkeeper.cli.local_settings import (
    ENVIRONMENTS,
    PASSED_ON,
    LocalConfiguration,
    LocalSettings,
    passed_on,
    read_configuration,
)
from watchkeeper.cli.system import CliSettings
from watchkeeper.core.names import declared_models
from watchkeeper.core.persisted import effective_variables, write_persisted
from watchkeeper.core.settings import SettingsError
from watchkeeper.platforms.local.home import Home, Ports, write_struct
from watchkeeper.platforms.local.served_versions import ServedVersions
from watchkeeper.platforms.local.supervisor import Supervisor
from watchkeeper.platforms.local.version_programs import ServedVersion

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "settings.md"
PREFIX = "WATCHKEEPER_"
MEBIBYTE = 1024 * 1024
# Where each role reads its settings.
STRUCTS = {
    "server": (
        ("serving", "watchkeeper.serving.settings", "ServingSettings"),
        ("serving", "watchkeeper.serving.initialize", "InitializeSettings"),
    ),
    "sidecar": (("drift", "watchkeeper.drift.settings", "SidecarSettings"),),
    "rollout": (("rollout", "watchkeeper.rollout.settings", "RolloutSettings"),),
    "training": (
        ("training", "watchkeeper.training.__main__", "TrainingSettings"),
        ("training", "watchkeeper.registry.snapshots", "SnapshotSettings"),
    ),
}
READ = """
import importlib, json, sys, msgspec
kind = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
fields = {f.name: f for f in msgspec.structs.fields(kind)}
listed = {n: None if f.required or f.default is msgspec.NODEFAULT else f.default
        for n, f in fields.items()}
print(json.dumps(listed, default=str))
"""


def fields_of(component: str, module: str, name: str) -> dict[str, Any]:
    """The settings of a component with their defaults, read in its own environment."""
    python = ROOT / ENVIRONMENTS[component] / ".venv" / "bin" / "python"
    if not python.exists():
        pytest.fail(f"{python} is missing: install the components first")
    done = subprocess.run(
        [python, "-c", READ, module, name], capture_output=True, text=True, timeout=120, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def settings() -> dict[str, dict[str, Any]]:
    """All settings by role."""
    return {
        role: {k: v for struct in structs for k, v in fields_of(*struct).items()}
        for role, structs in STRUCTS.items()
    }


@pytest.fixture
def given(tmp_path: Path) -> dict[str, set[str]]:
    """The settings that the system itself gives to each role, as names of fields."""
    home = Home(tmp_path / "home")
    home.make()
    system = describe(
        home,
        str(tmp_path),
        Ports(1, 2, 3, 4),
        LocalConfiguration(("pump",), LocalSettings(), {}, ()),
    )
    write_struct(home.config_file, system)
    server, sidecar = ServedVersions(home, Supervisor(home, tmp_path)).programs(
        ServedVersion("pump", 1, 5, 6, 7, 8)
    )
    environments = {
        "server": server.environment,
        "sidecar": sidecar.environment,
        "rollout": rollout_program(system).environment,
        "training": system.role("training").environment,
    }
    return {
        role: {
            name.removeprefix(PREFIX).removesuffix("_FILE").lower()
            for name in environment
            if name.startswith(PREFIX)
        }
        for role, environment in environments.items()
    }


# The local gateway calls the servers on the loopback, which needs no TLS.
ON_CLUSTERS = {"server": {"certificate", "https_port", "grpcs_port"}}


@pytest.mark.parametrize("role", STRUCTS)
def test_every_setting_of_a_component_is_set_by_the_system_or_passed_on(
    role: str, settings: dict[str, dict[str, Any]], given: dict[str, set[str]]
) -> None:
    passed = {name.lower() for name in PASSED_ON.get(role, ())}
    on_clusters = ON_CLUSTERS.get(role, set())
    assert given[role] | passed | on_clusters == settings[role].keys()
    assert not given[role] & passed
    assert not (given[role] | passed) & on_clusters


def test_reference_page_lists_every_setting_with_its_default(
    settings: dict[str, dict[str, Any]],
) -> None:
    open_to_users = {f.name: f.default for f in msgspec.structs.fields(LocalSettings)}
    open_to_users |= {f.name: f.default for f in msgspec.structs.fields(CliSettings)}
    for role, names in PASSED_ON.items():
        open_to_users |= {name.lower(): settings[role][name.lower()] for name in names}
    rows = re.findall(rf"^\| `{PREFIX}(\w+)` \| (.+?) \| .+ \|$", PAGE.read_text(), re.MULTILINE)
    listed = {name.lower(): default for name, default in rows}
    assert len(listed) == len(rows)
    assert listed.keys() == open_to_users.keys()
    for name, default in open_to_users.items():
        if isinstance(default, int | float):
            assert listed[name] == _text(name, default)
        elif isinstance(default, dict):
            assert listed[name] == "the version's own"
    assert listed["models"] == "all declared models"
    assert declared_models()


def test_user_variable_is_passed_on_by_value_or_by_file() -> None:
    variables = {
        "WATCHKEEPER_TURN_SECONDS": "1",
        "WATCHKEEPER_ROLLOUT_POLICY_FILE": "/etc/policy.json",
        "WATCHKEEPER_POLL_SECONDS": "2",
    }
    assert passed_on("rollout", variables) == {
        "WATCHKEEPER_TURN_SECONDS": "1",
        "WATCHKEEPER_ROLLOUT_POLICY_FILE": "/etc/policy.json",
    }


def test_stored_settings_stay_until_they_are_set_again_or_emptied(tmp_path: Path) -> None:
    def given(models: tuple[str, ...] = (), **variables: str) -> LocalConfiguration:
        environ = {f"{PREFIX}{name}": value for name, value in variables.items()}
        found = read_configuration(tmp_path, models, {f"{PREFIX}COMPONENTS": str(ROOT), **environ})
        write_persisted(tmp_path, found.variables)
        return found

    keys = tmp_path / "keys.json"
    keys.write_text('{"lab": "0123456789abcdef"}')
    one, two = declared_models()[:2]
    given((one, two), TURN_SECONDS="1", V2_PORT="8888", API_KEYS_FILE=str(keys))
    later = given()
    assert later.models == (one, two)
    assert later.settings.v2_port == 8888
    assert passed_on("rollout", later.variables) == {"WATCHKEEPER_TURN_SECONDS": "1"}
    assert later.settings.api_keys == keys.read_text()
    assert set(later.persisted) == {
        f"{PREFIX}{name}" for name in ("MODELS", "TURN_SECONDS", "V2_PORT", "API_KEYS_FILE")
    }
    changed = given((two,), TURN_SECONDS="2", API_KEYS="", V2_PORT="")
    assert (changed.models, changed.persisted) == ((two,), ())
    assert changed.settings == LocalSettings(
        **{
            name: getattr(changed.settings, name)
            for name in ("source_url", "ledger_url", "snapshots_url")
        },
        components=ROOT,
        code_version=changed.settings.code_version,
    )
    assert given().persisted == (f"{PREFIX}MODELS", f"{PREFIX}TURN_SECONDS")


def test_value_and_file_replace_each_other() -> None:
    by_value, by_file = "WATCHKEEPER_API_KEYS", "WATCHKEEPER_API_KEYS_FILE"
    stored = effective_variables(["API_KEYS"], {}, {by_file: "keys.json"})
    assert stored == {by_file: str(Path("keys.json").absolute())}
    assert effective_variables(["API_KEYS"], stored, {by_value: "{}"}) == {by_value: "{}"}
    assert effective_variables(["API_KEYS"], {by_value: "{}"}, {by_file: "/keys"}) == {
        by_file: "/keys"
    }
    assert effective_variables(["API_KEYS"], stored, {by_file: ""}) == {}
    assert effective_variables(["API_KEYS"], stored, {}) == stored


def test_error_names_a_stored_setting_as_stored(tmp_path: Path) -> None:
    write_persisted(tmp_path, {"WATCHKEEPER_API_KEYS_FILE": str(tmp_path / "gone")})
    with pytest.raises(SettingsError, match="earlier 'up'; 'WATCHKEEPER_API_KEYS_FILE= watch"):
        read_configuration(tmp_path, ("pump",), {f"{PREFIX}COMPONENTS": str(ROOT)})


@pytest.mark.parametrize("stored", [False, True])
def test_a_model_that_no_package_declares_is_refused_at_once(tmp_path: Path, stored: bool) -> None:
    environ, models = {f"{PREFIX}COMPONENTS": str(ROOT)}, ("valve-failure",)
    if stored:
        write_persisted(tmp_path, {f"{PREFIX}MODELS": '["valve-failure"]'})
        models = ()
    with pytest.raises(SettingsError) as refused:
        read_configuration(tmp_path, models, environ)
    known = ", ".join(declared_models())
    message = f"no model 'valve-failure' is declared in this environment; declared models: {known}"
    assert message in str(refused.value)
    assert ("stored by an earlier 'up'" in str(refused.value)) is stored


def project(folder: Path) -> Path:
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "pumps"\n[project.entry-points."watchkeeper.models"]\n'
        'pump-wear = "pumps:WEAR"\npump-leak = "pumps:LEAK"\n'
        '[tool.watchkeeper]\nsource = "readings.csv"\n'
    )
    return folder


@pytest.mark.parametrize("by", ["argument", "variable"])
def test_models_of_a_folder_are_known_by_its_path_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    folder = project(tmp_path / "pumps")
    installed = declared_models()[0]
    environ = {f"{PREFIX}COMPONENTS": str(ROOT)}
    monkeypatch.chdir(tmp_path)
    if by == "argument":
        first = read_configuration(tmp_path, (installed, "./pumps"), environ)
    else:
        names = json.dumps([installed, "./pumps"])
        first = read_configuration(tmp_path, (), {**environ, f"{PREFIX}MODELS": names})
    write_persisted(tmp_path, first.variables)
    monkeypatch.chdir("/")
    later = read_configuration(tmp_path, (), environ)
    assert first.models == later.models == (installed, "pump-wear", "pump-leak")
    assert [found.folder for found in later.projects] == [folder]
    home = Home(tmp_path)
    home.make()
    system = describe(home, str(tmp_path), Ports(1, 2, 3, 4), later)
    own = system.role_for("training", "pump-leak").environment
    assert own["WATCHKEEPER_SOURCE_URL"] == f"csv:///{folder}/readings.csv"
    assert own["PYTHONPATH"].split(":")[:2] == [str(folder), str(tmp_path / "projects/pumps")]
    others = system.role_for("training", installed).environment
    assert others["WATCHKEEPER_SOURCE_URL"] == f"sqlite:///{tmp_path}/operational.db"


def test_a_folder_without_a_project_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"MODELS: .*pyproject\.toml: No such file"):
        read_configuration(tmp_path, (f"{tmp_path}/gone",), {f"{PREFIX}COMPONENTS": str(ROOT)})


def test_a_model_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    folder = str(project(tmp_path / "pumps"))
    with pytest.raises(SettingsError, match="the model 'pump-wear' is named twice"):
        read_configuration(tmp_path, (folder, folder), {f"{PREFIX}COMPONENTS": str(ROOT)})


def _text(name: str, default: float) -> str:
    if name.endswith("_seconds"):
        return f"{default:g} s"
    if name.endswith("_bytes"):
        return f"{default / MEBIBYTE:g} MiB"
    return f"{default:g}"
