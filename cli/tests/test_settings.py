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
from watchkeeper.cli.local_settings import PASSED_ON, LocalSettings, passed_on
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
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """What the system itself tells each role, as names of fields."""
    for name in {name for names in PASSED_ON.values() for name in names}:
        monkeypatch.delenv(PREFIX + name, raising=False)
    home = Home(tmp_path / "home")
    home.make()
    system = describe(home, str(tmp_path), ("pump",), Ports(1, 2, 3, 4), LocalSettings())
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
    environ = {
        "WATCHKEEPER_TURN_SECONDS": "1",
        "WATCHKEEPER_ROLLOUT_POLICY_FILE": "policy.json",
        "WATCHKEEPER_POLL_SECONDS": "2",
    }
    assert passed_on("rollout", environ) == {
        "WATCHKEEPER_TURN_SECONDS": "1",
        "WATCHKEEPER_ROLLOUT_POLICY_FILE": str(Path("policy.json").absolute()),
    }


def _text(name: str, default: float) -> str:
    if name.endswith("_seconds"):
        return f"{default:g} s"
    if name.endswith("_bytes"):
        return f"{default / MEBIBYTE:g} MiB"
    return f"{default:g}"
