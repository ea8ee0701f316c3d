"""No setting is forgotten: of a component's settings, each is given by the system or passed on, and
each that a user may set stands in the manual, with its default.
"""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from watchkeeper.cli import installation
from watchkeeper.cli.local_programs import describe, rollout_program
from watchkeeper.cli.local_settings import (
    PASSED_ON,
    Given,
    LocalSettings,
    passed_on,
    read_given,
)
from watchkeeper.contracts.kept import in_force, keep
from watchkeeper.contracts.settings import SettingsError
from watchkeeper.platforms.local.home import Home, Ports, write_struct
from watchkeeper.platforms.local.pods import Pod, Pods
from watchkeeper.platforms.local.supervisor import Supervisor

ROOT = Path(__file__).parents[2]
MANUAL = ROOT / "docs" / "operating.md"
PREFIX = "WATCHKEEPER_"
MEBIBYTE = 1024 * 1024
# Where each role reads its settings.
STRUCTS = {
    "server": (
        ("serving", "watchkeeper.serving.settings", "ServingSettings"),
        ("serving", "watchkeeper.serving.initialize", "InitializeSettings"),
    ),
    "sidecar": (("drift", "watchkeeper.drift.settings", "Settings"),),
    "rollout": (("rollout", "watchkeeper.rollout.settings", "Settings"),),
    "training": (("training", "watchkeeper.training.__main__", "Settings"),),
}
READ = """
import importlib, json, sys, msgspec
kind = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
fields = {f.name: f for f in msgspec.structs.fields(kind)}
told = {n: None if f.required or f.default is msgspec.NODEFAULT else f.default
        for n, f in fields.items()}
print(json.dumps(told, default=str))
"""


def fields_of(component: str, module: str, name: str) -> dict[str, Any]:
    """The settings of a component with their defaults, read in its own environment."""
    python = ROOT / component / ".venv" / "bin" / "python"
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
    """What the system itself tells each role, as names of fields."""
    home = Home(tmp_path / "home")
    home.make()
    system = describe(
        home, str(tmp_path), Ports(1, 2, 3, 4), Given(("pump",), LocalSettings(), {}, ())
    )
    write_struct(home.installation_file, system)
    server, sidecar = Pods(home, Supervisor(home, tmp_path)).programs(Pod("pump", 1, 5, 6, 7, 8))
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


@pytest.mark.parametrize("role", STRUCTS)
def test_every_setting_of_a_component_is_given_or_passed_on(
    role: str, settings: dict[str, dict[str, Any]], given: dict[str, set[str]]
) -> None:
    passed = {name.lower() for name in PASSED_ON.get(role, ())}
    assert given[role] | passed == settings[role].keys()
    assert not given[role] & passed


def test_the_manual_tells_all_that_a_user_may_set_and_its_default(
    settings: dict[str, dict[str, Any]],
) -> None:
    open_to_users = {f.name: f.default for f in msgspec.structs.fields(LocalSettings)}
    open_to_users |= {f.name: f.default for f in msgspec.structs.fields(installation.Settings)}
    for role, names in PASSED_ON.items():
        open_to_users |= {name.lower(): settings[role][name.lower()] for name in names}
    rows = re.findall(rf"^\| `{PREFIX}(\w+)` \| (.+?) \| .+ \|$", MANUAL.read_text(), re.MULTILINE)
    told = {name.lower(): default for name, default in rows}
    assert len(told) == len(rows)
    assert told.keys() == open_to_users.keys()
    for name, default in open_to_users.items():
        if isinstance(default, int | float):
            assert told[name] == _text(name, default)
        elif isinstance(default, dict):
            assert told[name] == "the version's own"
        elif isinstance(default, tuple):
            assert told[name] == f"`{json.dumps(default)}`"


def test_a_users_variable_is_passed_on_by_value_or_by_file() -> None:
    variables = {
        "WATCHKEEPER_TURN_SECONDS": "1",
        "WATCHKEEPER_ROLLOUT_POLICY_FILE": "/etc/policy.json",
        "WATCHKEEPER_POLL_SECONDS": "2",
    }
    assert passed_on("rollout", variables) == {
        "WATCHKEEPER_TURN_SECONDS": "1",
        "WATCHKEEPER_ROLLOUT_POLICY_FILE": "/etc/policy.json",
    }


def test_settings_stay_in_force_until_they_are_given_anew_or_empty(tmp_path: Path) -> None:
    def given(models: tuple[str, ...] = (), **variables: str) -> Given:
        environ = {f"{PREFIX}{name}": value for name, value in variables.items()}
        found = read_given(tmp_path, models, {f"{PREFIX}COMPONENTS": str(ROOT), **environ})
        keep(tmp_path, found.variables)
        return found

    keys = tmp_path / "keys.json"
    keys.write_text('{"lab": "0123456789abcdef"}')
    given(("pump", "mill"), TURN_SECONDS="1", V2_PORT="8888", API_KEYS_FILE=str(keys))
    later = given()
    assert later.models == ("pump", "mill")
    assert later.settings.v2_port == 8888
    assert passed_on("rollout", later.variables) == {"WATCHKEEPER_TURN_SECONDS": "1"}
    assert later.settings.api_keys == keys.read_text()
    assert set(later.kept) == {
        f"{PREFIX}{name}" for name in ("MODELS", "TURN_SECONDS", "V2_PORT", "API_KEYS_FILE")
    }
    changed = given(("mill",), TURN_SECONDS="2", API_KEYS="", V2_PORT="")
    assert (changed.models, changed.kept) == (("mill",), ())
    assert changed.settings == LocalSettings(
        **{name: getattr(changed.settings, name) for name in ("source_url", "ledger_url")},
        components=ROOT,
        code_version=changed.settings.code_version,
    )
    assert given().kept == (f"{PREFIX}MODELS", f"{PREFIX}TURN_SECONDS")


def test_a_value_takes_the_place_of_a_file_and_the_other_way_round() -> None:
    by_value, by_file = "WATCHKEEPER_API_KEYS", "WATCHKEEPER_API_KEYS_FILE"
    kept = in_force(["API_KEYS"], {}, {by_file: "keys.json"})
    assert kept == {by_file: str(Path("keys.json").absolute())}
    assert in_force(["API_KEYS"], kept, {by_value: "{}"}) == {by_value: "{}"}
    assert in_force(["API_KEYS"], {by_value: "{}"}, {by_file: "/keys"}) == {by_file: "/keys"}
    assert in_force(["API_KEYS"], kept, {by_file: ""}) == {}
    assert in_force(["API_KEYS"], kept, {}) == kept


def test_a_kept_setting_that_no_longer_works_is_told_as_such(tmp_path: Path) -> None:
    keep(tmp_path, {"WATCHKEEPER_API_KEYS_FILE": str(tmp_path / "gone")})
    with pytest.raises(SettingsError, match="earlier 'up'; 'WATCHKEEPER_API_KEYS_FILE= watch"):
        read_given(tmp_path, ("pump",), {f"{PREFIX}COMPONENTS": str(ROOT)})


def _text(name: str, default: float) -> str:
    if name.endswith("_seconds"):
        return f"{default:g} s"
    if name.endswith("_bytes"):
        return f"{default / MEBIBYTE:g} MiB"
    return f"{default:g}"
