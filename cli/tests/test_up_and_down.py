"""Start and stop of the local system with the real supervisord, MLflow and Envoy.

The other components are shell scripts.
"""

import concurrent.futures
import http.client
import http.server
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import msgspec
import psutil
import pytest
from waiting import wait_for

from watchkeeper.cli import up as up_module
from watchkeeper.cli.down import down
from watchkeeper.cli.local_settings import ENVIRONMENTS
from watchkeeper.cli.up import up
from watchkeeper.core.names import InvalidNameError, declared_models
from watchkeeper.core.settings import SettingsError
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.episodes import attempts
from watchkeeper.platforms import Endpoints, PlatformError
from watchkeeper.platforms.local import LocalPlatform
from watchkeeper.platforms.local.home import Ports
from watchkeeper.platforms.local.home_processes import (
    HOME_VARIABLE,
    find_processes,
    terminate_processes,
)
from watchkeeper.platforms.local.ports import free_port, ports_of
from watchkeeper.platforms.local.supervisor import ProgramState
from watchkeeper.registry import Registry

MODEL = "pump-failure"
DECLARED = declared_models()[-1]
ROOT = Path(__file__).parents[2]
STAND_IN = """#!/bin/sh
case "$2" in
watchkeeper.training) echo "$@" >> {folder}/trainings ;;
watchkeeper.training.check_parameters) exec {root}/.venv/bin/python "$@" ;;
watchkeeper.rollout) exec {python} -m http.server --bind 127.0.0.1 "$WATCHKEEPER_PORT" ;;
*) exec sleep 1000 ;;
esac
"""


def make_components(folder: Path, **scripts: str) -> None:
    """Lay out the components: MLflow's environment is the real one unless a script is given."""
    stand_in = STAND_IN.format(folder=folder, python=sys.executable, root=ROOT)
    for component, environment in ENVIRONMENTS.items():
        place = folder / environment / ".venv"
        if component == "mlflow" and component not in scripts:
            place.parent.mkdir(parents=True)
            place.symlink_to(ROOT / environment / ".venv")
            continue
        python = place / "bin" / "python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text(scripts.get(component, stand_in))
        python.chmod(0o755)


@pytest.fixture(scope="module")
def components(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("components")
    make_components(folder)
    return folder


@pytest.fixture(scope="module")
def environment(components: Path) -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WATCHKEEPER_COMPONENTS", str(components))
        patch.setenv("MLFLOW_TRACKING_URI", "http://somewhere.else:1")
        for name in ("V2", "MLFLOW", "OPERATIONS", "ROLLOUT"):
            patch.setenv(f"WATCHKEEPER_{name}_PORT", str(free_port()))
        yield patch


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("a home") / ".watchkeeper"
    yield folder
    terminate_processes(folder.resolve(), 1.0)


@pytest.fixture(scope="module")
def endpoints(home: Path, environment: pytest.MonkeyPatch) -> Endpoints:  # noqa: ARG001
    """Start the system twice at the same time."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: up(home, [MODEL]), range(2))
    assert first == second
    return first


def get(url: str) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=20)
    try:
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def states(home: Path) -> dict[str, ProgramState]:
    return LocalPlatform(home).supervisor.states()


def processes(home: Path) -> dict[str, tuple[int, int]]:
    return {name: (state.pid, state.started) for name, state in states(home).items()}


def test_concurrent_ups_start_every_process_once(home: Path, endpoints: Endpoints) -> None:
    assert {"gateway", "mlflow", "rollout"} <= states(home).keys()
    assert get(f"{endpoints.mlflow}/health")[0] == 200
    status, body = get(f"{endpoints.v2}/v2/health/ready")
    assert status == 503
    assert json.loads(body)["error"].startswith("gateway: ")
    commands = [tuple(process.cmdline()) for process in find_processes(home)]
    assert len(set(commands)) == len(commands)
    assert LocalPlatform(home).endpoints() == endpoints


def test_a_run_is_started_once_by_its_name(
    home: Path, endpoints: Endpoints, components: Path
) -> None:
    platform = LocalPlatform(home)
    assert watchkeeper(home, "train", MODEL)[1] == {"run": "pump-failure-v0-a1"}
    wait_for(lambda: platform.runs(MODEL) == {"pump-failure-v0-a1": "succeeded"})
    assert up(home, [MODEL]) == endpoints
    assert len((components / "trainings").read_text().splitlines()) == 1
    ledger = Ledger(endpoints.ledger)
    assert [attempt.run for attempt in attempts(ledger, MODEL)] == ["pump-failure-v0-a1"]
    ledger.close()


def test_registry_stores_versions_and_artifacts(endpoints: Endpoints, tmp_path: Path) -> None:
    client = Registry(endpoints.mlflow).client
    (tmp_path / "metrics_report.txt").write_text("fine")
    run = client.create_run(client.create_experiment("any"))
    client.log_artifact(run.info.run_id, str(tmp_path / "metrics_report.txt"), "model")
    client.create_registered_model("another")
    client.create_model_version("another", f"{run.info.artifact_uri}/model", run.info.run_id)
    Registry(endpoints.mlflow).download("mlflow://another/1", tmp_path / "got")
    assert (tmp_path / "got" / "metrics_report.txt").read_text() == "fine"


def test_secrets_are_readable_by_the_user_only(home: Path, endpoints: Endpoints) -> None:  # noqa: ARG001
    files = [path for path in (home / "secrets").rglob("*") if path.is_file()]
    assert {file.name for file in files} == {"signing-key", "feedback-token", "token"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert all(len(file.read_text()) == 64 for file in files)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_a_second_up_restarts_nothing(home: Path, endpoints: Endpoints) -> None:
    before = processes(home)
    assert up(home, [MODEL]) == endpoints
    assert processes(home) == before


def test_changed_setting_restarts_only_its_component(
    home: Path, endpoints: Endpoints, environment: pytest.MonkeyPatch
) -> None:
    before = states(home)
    with environment.context() as patch:
        patch.setenv("WATCHKEEPER_TURN_SECONDS", "1")
        assert up(home, [MODEL]) == endpoints
        after = states(home)
    assert {name for name in before if after[name].pid != before[name].pid} == {"rollout"}


def test_programs_do_not_inherit_the_callers_settings(home: Path, endpoints: Endpoints) -> None:
    rollout = psutil.Process(states(home)["rollout"].pid)
    wait_for(lambda: "http.server" in rollout.cmdline())  # its shell has become the stand-in
    environment = rollout.environ()
    assert environment["MLFLOW_TRACKING_URI"] == endpoints.mlflow
    assert environment[HOME_VARIABLE] == str(home)
    assert "WATCHKEEPER_COMPONENTS" not in environment


def test_adding_a_model_restarts_no_service(home: Path, endpoints: Endpoints) -> None:
    before = states(home)
    both = up(home, [MODEL, DECLARED])
    assert both.hosts.keys() == {MODEL, DECLARED}
    after = states(home)
    assert (after["gateway"], after["mlflow"]) == (before["gateway"], before["mlflow"])
    assert up(home, [MODEL]) == endpoints


def test_the_rollout_controller_ends_the_versions_of_a_removed_model(
    home: Path, endpoints: Endpoints
) -> None:
    up(home, [MODEL, DECLARED])
    platform = LocalPlatform(home)
    platform.serve(DECLARED, 1)
    served = {f"server.{DECLARED}-v1", f"sidecar.{DECLARED}-v1"}
    assert served <= states(home).keys()
    assert up(home, [MODEL]) == endpoints
    assert served <= states(home).keys(), "so that they drain"
    assert watchkeeper(home, "status")[1]["removed"] == [DECLARED]
    while platform.removed_models():
        platform.remove(DECLARED)
    assert not served & states(home).keys()
    assert watchkeeper(home, "status")[1]["removed"] == []


def run_watchkeeper(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [Path(sys.executable).with_name("watchkeeper"), *arguments],
        env={**os.environ, "WATCHKEEPER_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=600,  # for a busy machine
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


def watchkeeper(home: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run the command line; return its exit code, its JSON and its standard error."""
    done = run_watchkeeper(home, *arguments, "--json")
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def crash_supervisord(home: Path) -> set[int]:
    """Kill supervisord; return the pids of the processes that survive it."""
    supervisord = psutil.Process(LocalPlatform(home).supervisor.pid())
    supervisord.kill()
    supervisord.wait(10)
    return {process.pid for process in find_processes(home)}


def test_status_works_while_the_registry_is_down(home: Path, endpoints: Endpoints) -> None:
    supervisor = LocalPlatform(home).supervisor
    supervisor.stop(["mlflow"])
    code, status, _ = watchkeeper(home, "status")
    assert code == 0
    assert status["down"].keys() == {"registry"}
    assert "connect" in status["down"]["registry"].lower()
    (model,) = status["models"]
    assert model["runs"] == {"pump-failure-v0-a1": "succeeded"}
    assert {p["name"]: p["state"] for p in status["processes"]}["mlflow"] == "stopped"
    supervisor.remove("mlflow")
    assert up(home, [MODEL]) == endpoints


def test_unknown_parameter_is_refused_before_a_run_exists(home: Path, endpoints: Endpoints) -> None:
    both = up(home, [MODEL, DECLARED])
    before = LocalPlatform(home).runs(DECLARED)
    code, _, stderr = watchkeeper(home, "train", DECLARED, "--set", "tree=9")
    assert code == 1
    assert "no parameter 'tree'; it has:" in json.loads(stderr)["error"]
    assert "trees" in json.loads(stderr)["error"]
    ledger = Ledger(both.ledger)
    assert {a.run for a in attempts(ledger, DECLARED)} == before.keys()
    ledger.close()
    assert LocalPlatform(home).runs(DECLARED) == before
    assert up(home, [MODEL]) == endpoints


def test_up_and_down_refuse_other_platforms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHKEEPER_PLATFORM", "kube:watch/training")
    for command in ("up", "down"):
        code, _, stderr = watchkeeper(tmp_path / "home", command)
        assert code == 1
        assert "WATCHKEEPER_PLATFORM is kube:watch/training" in json.loads(stderr)["error"]
    assert not (tmp_path / "home").exists()


def test_up_without_settings_reuses_the_stored_ones_and_says_so(
    home: Path, endpoints: Endpoints, environment: pytest.MonkeyPatch
) -> None:
    with environment.context() as patch:
        patch.setenv("WATCHKEEPER_API_KEYS", '{"lab": "0123456789abcdef"}')
        assert up(home, [MODEL]) == endpoints
    before = processes(home)
    code, found, stderr = watchkeeper(home, "up")
    assert (code, found["hosts"]) == (0, {MODEL: MODEL})
    assert processes(home) == before
    (warning,) = [
        line["message"]
        for line in map(json.loads, stderr.splitlines())
        if line["message"].startswith("settings of an earlier")
    ]
    assert "WATCHKEEPER_API_KEYS, WATCHKEEPER_MODELS" in warning
    assert "0123456789abcdef" not in stderr
    table = home / "gateway" / "v2.json"
    assert "0123456789abcdef" in table.read_text()
    with environment.context() as patch:
        patch.setenv("WATCHKEEPER_API_KEYS", "")
        assert up(home) == endpoints
    assert "0123456789abcdef" not in table.read_text()


def test_error_is_one_line_or_one_json_object(
    environment: pytest.MonkeyPatch,  # noqa: ARG001
) -> None:
    folder = Path(__file__) / "below"
    code, _, stderr = watchkeeper(folder, "up")
    assert code == 1
    assert "below" in json.loads(stderr)["error"]
    done = run_watchkeeper(folder, "up")
    assert done.returncode == 1
    assert done.stderr == f"watchkeeper: {json.loads(stderr)['error']}\n"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (("status", "--unknown"), "--unknown"),
        (("explain",), "prediction_id"),
        (("promote", "--version", "two"), "--version"),
        (("statsu",), "statsu"),
    ],
)
def test_usage_error_is_a_json_object_with_json_option(
    tmp_path: Path, wrong: tuple[str, ...], why: str
) -> None:
    for_people = run_watchkeeper(tmp_path, *wrong)
    code, _, stderr = watchkeeper(tmp_path, *wrong)
    assert (code, for_people.returncode) == (2, 2)
    assert why in json.loads(stderr)["error"]
    assert why in for_people.stderr


def test_version_option(tmp_path: Path) -> None:
    done = run_watchkeeper(tmp_path, "--version")
    assert (done.returncode, done.stdout) == (0, f"watchkeeper {version('watchkeeper-cli')}\n")


def test_up_recovers_from_a_crash_of_supervisord(
    home: Path, endpoints: Endpoints, components: Path
) -> None:
    trained = (components / "trainings").read_text()
    left = crash_supervisord(home)
    assert len(left) >= 3, "its programs keep running"
    code, status, _ = watchkeeper(home, "status")
    assert code == 0
    assert status["down"].keys() == {"platform"}
    assert "watchkeeper up" in status["down"]["platform"]
    assert up(home, [MODEL]) == endpoints
    assert not left & {process.pid for process in find_processes(home)}
    code, status, _ = watchkeeper(home, "status")
    assert (code, status["down"]) == (0, {})
    commands = [tuple(process.cmdline()) for process in find_processes(home)]
    assert len(set(commands)) == len(commands)
    assert (components / "trainings").read_text() == trained


def test_substitute_ports_stay_after_a_crash_of_supervisord(
    home: Path, endpoints: Endpoints, environment: pytest.MonkeyPatch
) -> None:
    """Clients know the address, so it stays the same as long as it is free."""
    with environment.context() as patch, socket.create_server(("127.0.0.1", 0)) as other_server:
        patch.setenv("WATCHKEEPER_V2_PORT", str(other_server.getsockname()[1]))
        crash_supervisord(home)
        assert up(home, [MODEL]) == endpoints


def test_ports_in_use_are_replaced_and_down_works_without_supervisord(
    home: Path,
    endpoints: Endpoints,
    environment: pytest.MonkeyPatch,  # noqa: ARG001
    tmp_path: Path,
) -> None:
    other = tmp_path / ".watchkeeper"
    try:
        theirs = up(other, [MODEL])
        assert not {theirs.v2, theirs.mlflow, theirs.drift} & {
            endpoints.v2,
            endpoints.mlflow,
            endpoints.drift,
        }
        assert crash_supervisord(other)
        down(other)
        assert find_processes(other) == []
    finally:
        terminate_processes(other, 1.0)
    assert get(f"{endpoints.mlflow}/health")[0] == 200, "the other system must be left alone"
    assert find_processes(home)


class AnswersEverything(http.server.BaseHTTPRequestHandler):
    """Answers every request with 200, and remembers its path."""

    requests: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.requests.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


def test_ports_taken_by_other_programs_before_the_start_are_replaced(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / ".watchkeeper"
    others = [
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), AnswersEverything) for _ in range(4)
    ]
    taken = Ports(*(other_server.server_port for other_server in others))
    for other_server in others:
        threading.Thread(target=other_server.serve_forever).start()
    try:
        with environment.context() as patch:
            patch.setattr(up_module, "_choose_ports", lambda *_: taken)
            endpoints = up(folder, [MODEL])
        config = LocalPlatform(folder).home.read_config()
        assert not set(msgspec.structs.astuple(config.ports)) & set(msgspec.structs.astuple(taken))
        assert endpoints.mlflow == f"http://127.0.0.1:{config.ports.mlflow}"
        assert config.role("training").environment["MLFLOW_TRACKING_URI"] == endpoints.mlflow
        running = states(folder)
        assert config.ports.mlflow in ports_of(running["mlflow"].pid)
        assert {config.ports.v2, config.ports.operations} <= ports_of(running["gateway"].pid)
        assert config.ports.rollout in ports_of(running["rollout"].pid)
        assert get(f"{endpoints.v2}/v2/health/ready")[0] == 503
        assert AnswersEverything.requests == []
        assert up(folder, [MODEL]) == endpoints
    finally:
        for other_server in others:
            other_server.shutdown()
            other_server.server_close()
        down(folder)
        terminate_processes(folder, 1.0)


def test_two_systems_that_start_at_once_have_separate_registries(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folders = [tmp_path / name / ".watchkeeper" for name in ("one", "two")]
    with environment.context() as patch:
        for name in ("V2", "MLFLOW", "OPERATIONS", "ROLLOUT"):
            patch.setenv(f"WATCHKEEPER_{name}_PORT", str(free_port()))
        try:
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                places = list(pool.map(lambda folder: watchkeeper(folder, "up", MODEL), folders))
            assert [code for code, _, _ in places] == [0, 0], places
            registries = [found["mlflow"] for _, found, _ in places]
            for number, place in enumerate(registries):
                Registry(place).client.create_registered_model(f"model-{number}")
            for number, place in enumerate(registries):
                (found,) = Registry(place).client.search_registered_models()
                assert found.name == f"model-{number}"
        finally:
            for folder in folders:
                down(folder)
                terminate_processes(folder, 1.0)


def test_down_leaves_no_process(home: Path, endpoints: Endpoints) -> None:
    sockets = LocalPlatform(home).home.read_config().sockets
    down(home)
    assert find_processes(home) == []
    assert not Path(sockets).exists()
    with pytest.raises(OSError, match="refused"):
        get(f"{endpoints.v2}/v2/health/ready")
    with pytest.raises(PlatformError, match="watchkeeper up"):
        LocalPlatform(home).endpoints()
    down(home)


def test_down_without_a_system_does_nothing(tmp_path: Path) -> None:
    down(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_invalid_settings_are_refused_before_anything_starts(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / ".watchkeeper"
    for name, value, expected in (
        ("DRIFT_POLICY", '{"windows": 3}', "windows"),
        ("ROLLOUT_POLICY", '{"steps": [50, 10]}', "steps"),
        ("LEDGER_URL", "ledger.db", "WATCHKEEPER_LEDGER_URL"),
        ("V2_PORT", "http", "WATCHKEEPER_V2_PORT"),
        ("COMPONENTS", str(tmp_path), "make environments"),
    ):
        with environment.context() as patch:
            patch.setenv(f"WATCHKEEPER_{name}", value)
            with pytest.raises(SettingsError, match=expected):
                up(folder, [MODEL])
    with pytest.raises(InvalidNameError, match="pump_failure"):
        up(folder, ["pump_failure"])
    assert not folder.exists()


def test_service_that_does_not_start_is_named_with_its_log(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_components(tmp_path / "broken", mlflow="#!/bin/sh\necho the disk is full; exit 1\n")
    folder = tmp_path / ".watchkeeper"
    try:
        with environment.context() as patch:
            patch.setenv("WATCHKEEPER_COMPONENTS", str(tmp_path / "broken"))
            with pytest.raises(PlatformError, match=r"mlflow .*: the disk is full .*mlflow\.log"):
                up(folder, [MODEL])
        down(folder)
        assert find_processes(folder) == []
    finally:
        terminate_processes(folder, 1.0)
