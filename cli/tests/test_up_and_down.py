"""Up and down with the real supervisord, MLflow and Envoy; the other components are stand-ins."""

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
from watchkeeper.cli.up import up
from watchkeeper.contracts.names import InvalidNameError
from watchkeeper.contracts.settings import SettingsError
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.episodes import attempts
from watchkeeper.platforms import Endpoints, PlatformError
from watchkeeper.platforms.local import LocalPlatform
from watchkeeper.platforms.local.home import Ports
from watchkeeper.platforms.local.orphans import MARK, end_marked, marked
from watchkeeper.platforms.local.ports import free_port, ports_of
from watchkeeper.platforms.local.supervisor import State
from watchkeeper.registry import Registry

MODEL = "pump-failure"
ROOT = Path(__file__).parents[2]
STAND_IN = """#!/bin/sh
case "$2" in
watchkeeper.training) echo "$@" >> {folder}/trainings ;;
watchkeeper.training.check) exec {root}/training/.venv/bin/python "$@" ;;
watchkeeper.rollout) exec {python} -m http.server --bind 127.0.0.1 "$WATCHKEEPER_PORT" ;;
*) exec sleep 1000 ;;
esac
"""


def make_components(folder: Path, **scripts: str) -> None:
    """Lay out the components: MLflow's environment is the real one unless a script is given."""
    stand_in = STAND_IN.format(folder=folder, python=sys.executable, root=ROOT)
    for component in ("training", "serving", "drift", "rollout", "registry"):
        if component == "registry" and component not in scripts:
            (folder / component).mkdir(parents=True)
            (folder / component / ".venv").symlink_to(ROOT / "registry" / ".venv")
            continue
        python = folder / component / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
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
    end_marked(folder.resolve(), 1.0)


@pytest.fixture(scope="module")
def endpoints(home: Path, environment: pytest.MonkeyPatch) -> Endpoints:  # noqa: ARG001
    """Bring the system up, by two at the same time."""
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


def states(home: Path) -> dict[str, State]:
    return LocalPlatform(home).supervisor.states()


def processes(home: Path) -> dict[str, tuple[int, int]]:
    return {name: (state.pid, state.started) for name, state in states(home).items()}


def test_two_at_a_time_start_everything_once(home: Path, endpoints: Endpoints) -> None:
    assert {"gateway", "mlflow", "rollout"} <= states(home).keys()
    assert get(f"{endpoints.mlflow}/health")[0] == 200
    status, body = get(f"{endpoints.v2}/v2/health/ready")
    assert status == 503
    assert json.loads(body)["error"].startswith("gateway: ")
    commands = [tuple(process.cmdline()) for process in marked(home)]
    assert len(set(commands)) == len(commands)
    assert LocalPlatform(home).endpoints() == endpoints


def test_the_first_version_is_trained_once(
    home: Path, endpoints: Endpoints, components: Path
) -> None:
    platform = LocalPlatform(home)
    wait_for(lambda: platform.runs(MODEL) == {"pump-failure-v0-a1": "succeeded"})
    assert up(home, [MODEL]) == endpoints
    assert len((components / "trainings").read_text().splitlines()) == 1
    ledger = Ledger(endpoints.ledger)
    assert [attempt.run for attempt in attempts(ledger, MODEL)] == ["pump-failure-v0-a1"]
    ledger.close()


def test_the_registry_keeps_versions_and_their_files(endpoints: Endpoints, tmp_path: Path) -> None:
    client = Registry(endpoints.mlflow).client
    (tmp_path / "metrics_report.txt").write_text("fine")
    run = client.create_run(client.create_experiment("any"))
    client.log_artifact(run.info.run_id, str(tmp_path / "metrics_report.txt"), "model")
    client.create_registered_model("another")
    client.create_model_version("another", f"{run.info.artifact_uri}/model", run.info.run_id)
    Registry(endpoints.mlflow).download("mlflow://another/1", tmp_path / "got")
    assert (tmp_path / "got" / "metrics_report.txt").read_text() == "fine"


def test_secrets_are_for_the_user_only(home: Path, endpoints: Endpoints) -> None:  # noqa: ARG001
    files = list((home / "secrets").iterdir())
    assert {file.name for file in files} == {"signing-key", "feedback-token"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert all(len(file.read_text()) == 64 for file in files)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_a_second_up_restarts_nothing(home: Path, endpoints: Endpoints) -> None:
    before = processes(home)
    assert up(home, [MODEL]) == endpoints
    assert processes(home) == before


def test_a_changed_setting_restarts_only_what_it_is_for(
    home: Path, endpoints: Endpoints, environment: pytest.MonkeyPatch
) -> None:
    before = states(home)
    with environment.context() as patch:
        patch.setenv("WATCHKEEPER_TURN_SECONDS", "1")
        assert up(home, [MODEL]) == endpoints
        after = states(home)
    assert {name for name in before if after[name].pid != before[name].pid} == {"rollout"}


def test_programs_get_nothing_of_the_callers_settings(home: Path, endpoints: Endpoints) -> None:
    rollout = psutil.Process(states(home)["rollout"].pid)
    wait_for(lambda: "http.server" in rollout.cmdline())  # its shell has become the stand-in
    environment = rollout.environ()
    assert environment["MLFLOW_TRACKING_URI"] == endpoints.mlflow
    assert environment[MARK] == str(home)
    assert "WATCHKEEPER_COMPONENTS" not in environment


def test_another_model_needs_no_restart(home: Path, endpoints: Endpoints) -> None:
    before = states(home)
    both = up(home, [MODEL, "warranty-risk"])
    assert both.hosts.keys() == {MODEL, "warranty-risk"}
    after = states(home)
    assert (after["gateway"], after["mlflow"]) == (before["gateway"], before["mlflow"])
    runs = LocalPlatform(home).runs
    wait_for(lambda: runs("warranty-risk") == {"warranty-risk-v0-a1": "succeeded"})
    assert up(home, [MODEL]) == endpoints


def test_what_serves_a_model_stops_while_it_is_not_named(home: Path, endpoints: Endpoints) -> None:
    up(home, [MODEL, "warranty-risk"])
    LocalPlatform(home).serve("warranty-risk", 1)
    served = {"server.warranty-risk-v1", "sidecar.warranty-risk-v1"}
    assert served <= states(home).keys()
    assert up(home, [MODEL]) == endpoints
    assert not served & states(home).keys()
    up(home, [MODEL, "warranty-risk"])
    assert served <= states(home).keys()
    platform = LocalPlatform(home)
    while platform.serving("warranty-risk"):
        platform.retire("warranty-risk", 1)
    assert up(home, [MODEL]) == endpoints


def run_watchkeeper(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [Path(sys.executable).with_name("watchkeeper"), *arguments],
        env={**os.environ, "WATCHKEEPER_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


def watchkeeper(home: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run the command line; the exit code, its JSON, and what it said besides."""
    done = run_watchkeeper(home, *arguments, "--json")
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def crash_supervisord(home: Path) -> set[int]:
    """Kill supervisord; return the processes that it leaves behind."""
    supervisord = psutil.Process(LocalPlatform(home).supervisor.pid())
    supervisord.kill()
    supervisord.wait(10)
    return {process.pid for process in marked(home)}


def test_status_shows_what_it_can_while_the_registry_is_down(
    home: Path, endpoints: Endpoints
) -> None:
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


def test_a_typo_in_a_parameter_is_refused_before_there_is_a_run(
    home: Path, endpoints: Endpoints
) -> None:
    both = up(home, [MODEL, "warranty-risk"])
    before = LocalPlatform(home).runs("warranty-risk")
    code, _, said = watchkeeper(home, "train", "warranty-risk", "--set", "tree=9")
    assert code == 1
    assert "no parameter 'tree'; it has:" in json.loads(said)["error"]
    assert "trees" in json.loads(said)["error"]
    ledger = Ledger(both.ledger)
    assert {a.run for a in attempts(ledger, "warranty-risk")} == before.keys()
    ledger.close()
    assert LocalPlatform(home).runs("warranty-risk") == before
    assert up(home, [MODEL]) == endpoints


def test_a_version_of_the_code_is_a_reason_to_train_once(
    home: Path, endpoints: Endpoints, components: Path
) -> None:
    def ask(code: str, which: str = "--every-model") -> dict[str, Any]:
        done, (told,), _ = watchkeeper(home, "train", which, "--for-code", code, "--wait", "60")
        assert done == 0
        return dict(told)

    first = ask("Tag_1.0+x")
    assert first["started"]
    assert first["said"].endswith("started: first version, by code Tag_1.0+x")
    assert not ask("Tag_1.0+x", MODEL)["started"]
    wait_for(lambda: LocalPlatform(home).runs(MODEL)[first["run"]] == "succeeded")
    trained = (components / "trainings").read_text().splitlines()
    assert len([line for line in trained if first["run"] in line]) == 1
    tags = {"watchkeeper.run": "any", "watchkeeper.code_version": "2.0"}
    client = Registry(endpoints.mlflow).client
    client.create_registered_model(MODEL)
    run = client.create_run(client.create_experiment("by code"))
    client.create_model_version(
        MODEL, f"{run.info.artifact_uri}/model", run.info.run_id, tags, await_creation_for=0
    )
    assert ask("2.0")["said"] == f"{MODEL}: version 1 is by code 2.0: nothing to do"
    third = ask("3.0")
    assert third["said"].endswith("started: new code: 3.0")
    assert third["run"] != first["run"]
    wait_for(lambda: LocalPlatform(home).runs(MODEL)[third["run"]] == "succeeded")
    client.delete_registered_model(MODEL)
    ledger = Ledger(endpoints.ledger)
    assert {first["run"], third["run"]} <= {attempt.run for attempt in attempts(ledger, MODEL)}
    ledger.close()


def test_up_and_down_are_for_the_local_system_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHKEEPER_PLATFORM", "kube:watch/training")
    for command in ("up", "down"):
        code, _, said = watchkeeper(tmp_path / "home", command)
        assert code == 1
        assert "WATCHKEEPER_PLATFORM is kube:watch/training" in json.loads(said)["error"]
    assert not (tmp_path / "home").exists()


def test_a_plain_up_goes_on_with_what_was_given_last_and_says_so(
    home: Path, endpoints: Endpoints, environment: pytest.MonkeyPatch
) -> None:
    with environment.context() as patch:
        patch.setenv("WATCHKEEPER_API_KEYS", '{"lab": "0123456789abcdef"}')
        assert up(home, [MODEL]) == endpoints
    before = processes(home)
    code, found, said = watchkeeper(home, "up")
    assert (code, found["hosts"]) == (0, {MODEL: MODEL})
    assert processes(home) == before
    (told,) = [
        line["message"]
        for line in map(json.loads, said.splitlines())
        if line["message"].startswith("as in an earlier")
    ]
    assert "WATCHKEEPER_API_KEYS, WATCHKEEPER_MODELS" in told
    assert "0123456789abcdef" not in said
    table = home / "gateway" / "v2.json"
    assert "0123456789abcdef" in table.read_text()
    with environment.context() as patch:
        patch.setenv("WATCHKEEPER_API_KEYS", "")
        assert up(home) == endpoints
    assert "0123456789abcdef" not in table.read_text()


def test_an_error_is_one_line_and_an_object_for_programs(
    environment: pytest.MonkeyPatch,  # noqa: ARG001
) -> None:
    folder = Path(__file__) / "below"
    code, _, said = watchkeeper(folder, "up")
    assert code == 1
    assert "below" in json.loads(said)["error"]
    done = run_watchkeeper(folder, "up")
    assert done.returncode == 1
    assert done.stderr == f"watchkeeper: {json.loads(said)['error']}\n"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (("status", "--unknown"), "--unknown"),
        (("explain",), "prediction_id"),
        (("promote", "--version", "two"), "--version"),
        (("statsu",), "statsu"),
    ],
)
def test_a_command_line_that_is_wrong_is_an_object_for_programs(
    tmp_path: Path, wrong: tuple[str, ...], why: str
) -> None:
    for_people = run_watchkeeper(tmp_path, *wrong)
    code, _, said = watchkeeper(tmp_path, *wrong)
    assert (code, for_people.returncode) == (2, 2)
    assert why in json.loads(said)["error"]
    assert why in for_people.stderr


def test_the_version_is_told(tmp_path: Path) -> None:
    done = run_watchkeeper(tmp_path, "--version")
    assert (done.returncode, done.stdout) == (0, f"watchkeeper {version('watchkeeper-cli')}\n")


def test_after_a_crash_of_supervisord_status_says_so_and_up_goes_on_in_the_same_place(
    home: Path, endpoints: Endpoints, components: Path
) -> None:
    trained = (components / "trainings").read_text()
    left = crash_supervisord(home)
    assert len(left) >= 3, "what it kept alive goes on"
    code, status, _ = watchkeeper(home, "status")
    assert code == 0
    assert status["down"].keys() == {"supervision"}
    assert "watchkeeper up" in status["down"]["supervision"]
    assert up(home, [MODEL]) == endpoints
    assert not left & {process.pid for process in marked(home)}
    code, status, _ = watchkeeper(home, "status")
    assert (code, status["down"]) == (0, {})
    commands = [tuple(process.cmdline()) for process in marked(home)]
    assert len(set(commands)) == len(commands)
    assert (components / "trainings").read_text() == trained


def test_after_a_crash_of_supervisord_ports_that_were_not_the_wished_ones_stay(
    home: Path, endpoints: Endpoints, environment: pytest.MonkeyPatch
) -> None:
    """Clients know the address: it is the same as long as nobody else has taken it."""
    with environment.context() as patch, socket.create_server(("127.0.0.1", 0)) as stranger:
        patch.setenv("WATCHKEEPER_V2_PORT", str(stranger.getsockname()[1]))
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
        assert marked(other) == []
    finally:
        end_marked(other, 1.0)
    assert get(f"{endpoints.mlflow}/health")[0] == 200, "the other system must be left alone"
    assert marked(home)


class Anything(http.server.BaseHTTPRequestHandler):
    """Says yes to whatever it is asked."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


def test_ports_that_strangers_took_after_they_were_chosen_are_replaced_and_strangers_not_trusted(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / ".watchkeeper"
    strangers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Anything) for _ in range(4)]
    taken = Ports(*(stranger.server_port for stranger in strangers))
    for stranger in strangers:
        threading.Thread(target=stranger.serve_forever).start()
    try:
        with environment.context() as patch:
            patch.setattr(up_module, "_ports", lambda *_: taken)
            theirs = up(folder, [MODEL])
        installation = LocalPlatform(folder).home.read_installation()
        assert not set(msgspec.structs.astuple(installation.ports)) & set(
            msgspec.structs.astuple(taken)
        )
        assert theirs.mlflow == f"http://127.0.0.1:{installation.ports.mlflow}"
        assert installation.role("training").environment["MLFLOW_TRACKING_URI"] == theirs.mlflow
        parts = states(folder)
        assert installation.ports.mlflow in ports_of(parts["mlflow"].pid)
        assert {installation.ports.v2, installation.ports.operations} <= ports_of(
            parts["gateway"].pid
        )
        assert installation.ports.rollout in ports_of(parts["rollout"].pid)
        assert get(f"{theirs.v2}/v2/health/ready")[0] == 503
        assert Anything.asked == []
        assert up(folder, [MODEL]) == theirs
    finally:
        for stranger in strangers:
            stranger.shutdown()
            stranger.server_close()
        down(folder)
        end_marked(folder, 1.0)


def test_two_systems_that_start_at_once_have_a_registry_each(
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
                end_marked(folder, 1.0)


def test_down_leaves_nothing(home: Path, endpoints: Endpoints) -> None:
    sockets = LocalPlatform(home).home.read_installation().sockets
    down(home)
    assert marked(home) == []
    assert not Path(sockets).exists()
    with pytest.raises(OSError, match="refused"):
        get(f"{endpoints.v2}/v2/health/ready")
    with pytest.raises(PlatformError, match="watchkeeper up"):
        LocalPlatform(home).endpoints()
    down(home)


def test_down_where_nothing_ever_was_is_harmless(tmp_path: Path) -> None:
    down(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_settings_that_cannot_work_are_told_before_anything_starts(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / ".watchkeeper"
    for name, value, told in (
        ("DRIFT_POLICY", '{"windows": 3}', "windows"),
        ("ROLLOUT_POLICY", '{"steps": [50, 10]}', "steps"),
        ("LEDGER_URL", "ledger.db", "WATCHKEEPER_LEDGER_URL"),
        ("V2_PORT", "http", "WATCHKEEPER_V2_PORT"),
        ("COMPONENTS", str(tmp_path), "make environments"),
    ):
        with environment.context() as patch:
            patch.setenv(f"WATCHKEEPER_{name}", value)
            with pytest.raises(SettingsError, match=told):
                up(folder, [MODEL])
    with pytest.raises(InvalidNameError, match="pump_failure"):
        up(folder, ["pump_failure"])
    assert not folder.exists()


def test_a_part_that_does_not_come_up_is_named_with_its_log(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_components(tmp_path / "broken", registry="#!/bin/sh\necho the disk is full; exit 1\n")
    folder = tmp_path / ".watchkeeper"
    try:
        with environment.context() as patch:
            patch.setenv("WATCHKEEPER_COMPONENTS", str(tmp_path / "broken"))
            with pytest.raises(PlatformError, match=r"mlflow .*: the disk is full .*mlflow\.log"):
                up(folder, [MODEL])
        down(folder)
        assert marked(folder) == []
    finally:
        end_marked(folder, 1.0)
