"""The processes of the local platform: restarts, retirement, runs that happen once."""

import concurrent.futures
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import local_system
import msgspec
import psutil
import pytest
from local_system import MODEL, OTHER, install, retire, serve, snapshot, statuses
from waiting import wait_for

from watchkeeper.core.exit_codes import EXIT_FATAL
from watchkeeper.platforms import (
    Platform,
    PlatformError,
    RolloutCommands,
    Route,
    TrainingRun,
    open_platform,
)
from watchkeeper.platforms.local import LocalPlatform, served_versions
from watchkeeper.platforms.local.home import locked, write_struct
from watchkeeper.platforms.local.home_processes import find_processes
from watchkeeper.platforms.local.ports import free_port, ports_of
from watchkeeper.platforms.local.program import Program
from watchkeeper.platforms.local.runs import Runs
from watchkeeper.platforms.local.version_programs import ServedVersion


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder where trainings leave a file by their name."""
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Iterator[LocalPlatform]:
    folder = tmp_path_factory.mktemp("a home, 100% odd; #1")
    with local_system.running(
        folder, STAND_IN_FOLDER=str(trained), STAND_IN_BREAKS_ON="13"
    ) as platform:
        # What fails does so slowly, on purpose: let it, while the first tests run.
        platform.create_run(TrainingRun("fails", MODEL, "test", parameters={"exit": "3"}))
        platform.serve(MODEL, 13)
        yield platform


def starts_of(trained: Path, run: str) -> list[list[str]]:
    file = trained / run
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def crash_supervisord(platform: LocalPlatform) -> None:
    supervisord = psutil.Process(platform.supervisor.pid())
    supervisord.kill()
    supervisord.wait(10)


def test_open_platform_returns_the_platform_that_its_text_names(platform: LocalPlatform) -> None:
    opened: Platform = open_platform(f"local:{platform.home.folder}")
    assert opened.commands(MODEL) == RolloutCommands()
    with pytest.raises(PlatformError, match="watchkeeper up"):
        open_platform("local:/nowhere")
    with pytest.raises(PlatformError, match="must be local:"):
        open_platform("moon:base")


def test_concurrent_calls_create_a_run_once(platform: LocalPlatform, trained: Path) -> None:
    run = TrainingRun(
        "once", MODEL, 'it\'s "drift"; 100% #sure\n$HOME', parameters={"a": "%(b)s 'c'"}
    )
    others = [LocalPlatform(platform.home.folder) for _ in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda other: other.create_run(run), others))
    assert sorted(created) == [False] * 7 + [True]
    wait_for(lambda: platform.runs(MODEL)["once"] == "succeeded")
    assert starts_of(trained, "once") == [run.arguments()]
    assert not platform.create_run(run)


def test_reconcile_starts_an_interrupted_run(platform: LocalPlatform, trained: Path) -> None:
    run = TrainingRun("cut-off", MODEL, "test")
    (platform.home.runs / run.name).mkdir()
    write_struct(platform.home.runs / run.name / "run.json", run)
    assert not platform.create_run(run)
    assert platform.runs(MODEL)["cut-off"] == "running"
    assert "run.cut-off" not in platform.supervisor.states(), "reading starts nothing"
    platform.reconcile(MODEL)
    wait_for(lambda: platform.runs(MODEL)["cut-off"] == "succeeded")
    assert len(starts_of(trained, "cut-off")) == 1


def test_folders_of_an_interrupted_creation_or_removal_are_ignored(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o755)
    home = install(folder)
    assert folder.stat().st_mode & 0o777 == 0o700, "there are secrets inside"
    (home.runs / ".draft").mkdir()
    write_struct(home.runs / ".draft" / "run.json", TrainingRun("never-created", MODEL, "test"))
    (home.serving / ".gone").mkdir()
    served = ServedVersion(MODEL, 3, http=1, grpc=2, metrics=3, sidecar=4, retiring=True)
    write_struct(home.serving / ".gone" / "version.json", served)
    platform = LocalPlatform(folder)
    assert platform.versions.all() == []
    assert Runs(home, platform.supervisor).all() == []


def test_a_version_that_cannot_serve_is_failed_with_the_reason(platform: LocalPlatform) -> None:
    wait_for(lambda: platform.serving(MODEL)[13].state == "failed")
    assert "its example was answered wrong" in platform.serving(MODEL)[13].reason
    retire(platform, 13)
    assert 13 not in platform.serving(MODEL)


def test_a_version_waits_while_the_registry_does_not_answer(
    platform: LocalPlatform, trained: Path
) -> None:
    away = trained / "away-14"
    away.touch()
    platform.serve(MODEL, 14)
    wait_for(lambda: away.stat().st_size >= 2)
    found = platform.serving(MODEL)[14]
    assert (found.state, found.reason) == ("waiting", "for its files: the registry is away")
    assert not (platform.versions.folder(MODEL, 14) / "starts").exists()
    away.unlink()
    wait_for(lambda: platform.serving(MODEL)[14].state == "ready")
    retire(platform, 14)
    assert 14 not in platform.serving(MODEL)


def test_a_model_whose_server_drains_delays_no_other_model(platform: LocalPlatform) -> None:
    with locked(platform.home.serving / f".{MODEL}.lock", 0) as acquired:  # as a retirement does
        assert acquired
        serve(platform, 1, model=OTHER)
        retire(platform, 1, model=OTHER)


def test_a_failing_run_has_four_attempts(platform: LocalPlatform, trained: Path) -> None:
    wait_for(lambda: platform.runs(MODEL)["fails"] == "failed")
    assert len(starts_of(trained, "fails")) == 4
    assert Path(platform.run_log("fails")).is_file()
    assert platform.run_reason("fails") in Path(platform.run_log("fails")).read_text()
    assert platform.run_reason("unknown") == ""
    assert not platform.is_refused("fails")
    assert not platform.create_run(TrainingRun("fails", MODEL, "test"))


def test_a_run_that_exits_with_give_up_has_one_attempt(
    platform: LocalPlatform, trained: Path
) -> None:
    platform.create_run(
        TrainingRun("hopeless", MODEL, "test", parameters={"exit": str(EXIT_FATAL)})
    )
    wait_for(lambda: platform.runs(MODEL)["hopeless"] == "failed")
    assert len(starts_of(trained, "hopeless")) == 1
    assert platform.is_refused("hopeless")
    assert not platform.is_refused("unknown")


def test_after_a_kill_of_its_shell_a_run_has_one_training_process(
    platform: LocalPlatform, trained: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    platform.create_run(TrainingRun("orphaned", MODEL, "test", parameters={"wait": str(gate)}))
    wait_for(lambda: starts_of(trained, "orphaned"))
    shell = psutil.Process(platform.supervisor.states()["run.orphaned"].pid)
    trainings = shell.children(recursive=True)
    assert trainings
    shell.kill()
    wait_for(lambda: not any(process.is_running() for process in trainings))
    wait_for(lambda: len(starts_of(trained, "orphaned")) == 2)
    gate.touch()
    wait_for(lambda: platform.runs(MODEL)["orphaned"] == "succeeded")


def test_after_a_crash_of_supervisord_each_process_runs_once(
    platform: LocalPlatform, trained: Path, tmp_path: Path
) -> None:
    serve(platform, 1)
    done = platform.runs(MODEL)
    gate = tmp_path / "gate"
    platform.create_run(TrainingRun("interrupted", MODEL, "test", parameters={"wait": str(gate)}))
    wait_for(lambda: starts_of(trained, "interrupted"))
    ports = platform.versions.find(MODEL, 1)
    crash_supervisord(platform)
    with pytest.raises(PlatformError, match="does not answer"):
        platform.serving(MODEL)
    left_behind = {process.pid for process in find_processes(platform.home.folder)}
    assert left_behind

    platform.supervisor.start()
    assert not left_behind & {process.pid for process in find_processes(platform.home.folder)}
    wait_for(lambda: platform.serving(MODEL)[1].state == "ready")
    assert platform.versions.find(MODEL, 1) == ports
    wait_for(lambda: len(starts_of(trained, "interrupted")) == 2)
    gate.touch()
    wait_for(lambda: platform.runs(MODEL)["interrupted"] == "succeeded")
    assert {name: state for name, state in platform.runs(MODEL).items() if name in done} == done
    assert len(starts_of(trained, "once")) == 1
    commands = [tuple(process.cmdline()) for process in find_processes(platform.home.folder)]
    assert len(set(commands)) == len(commands)


def test_a_killed_server_restarts_on_its_ports(platform: LocalPlatform) -> None:
    serve(platform, 2)
    before = platform.supervisor.states()["server.pump-failure-v2"].pid
    served = platform.versions.find(MODEL, 2)
    os.kill(before, signal.SIGKILL)
    wait_for(
        lambda: (
            platform.supervisor.states()["server.pump-failure-v2"].pid not in (0, before)
            and platform.serving(MODEL)[2].state == "ready"
        )
    )
    assert platform.versions.find(MODEL, 2) == served


def test_serving_a_served_version_again_restarts_nothing(platform: LocalPlatform) -> None:
    serve(platform, 1, 2)
    before = platform.supervisor.states()
    serve(platform, 1, 2)
    after = platform.supervisor.states()  # what has just started may be called RUNNING only now
    assert {n: s.pid for n, s in after.items()} == {n: s.pid for n, s in before.items()}


def test_put_restarts_only_the_program_whose_definition_changed(platform: LocalPlatform) -> None:
    one, two = Program("one", "exec sleep 100"), Program("two", "exec sleep 100")
    assert platform.supervisor.put(one, two) == ["one", "two"]
    before = platform.supervisor.states()
    changed = Program("two", "exec sleep 100", {"NEW": "value"})
    assert platform.supervisor.put(one, changed) == ["two"]
    after = platform.supervisor.states()
    assert after["one"].pid == before["one"].pid
    wait_for(lambda: platform.supervisor.states()["two"].pid not in (0, before["two"].pid))
    platform.supervisor.remove("one", "two")
    assert "one" not in platform.supervisor.states()


def test_a_retired_version_leaves_no_process_and_no_file(platform: LocalPlatform) -> None:
    serve(platform, 3)
    pids = [s.pid for name, s in platform.supervisor.states().items() if name.endswith("-v3")]
    retire(platform, 3)
    assert 3 not in platform.serving(MODEL)
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not platform.versions.folder(MODEL, 3).exists()
    retire(platform, 3)


def test_retire_does_not_wait_for_a_server_that_drains(platform: LocalPlatform) -> None:
    serve(platform, 5)
    server = psutil.Process(platform.supervisor.states()[f"server.{MODEL}-v5"].pid)
    server.suspend()  # it drains, and does not end
    try:
        platform.retire(MODEL, 5)
        assert server.is_running()
        assert platform.serving(MODEL)[5].state == "retiring"
        states = platform.supervisor.states()
        assert states[f"server.{MODEL}-v5"].state == "STOPPING"
        assert states[f"sidecar.{MODEL}-v5"].state in ("STARTING", "RUNNING"), "ships until the end"
    finally:
        server.kill()
    retire(platform, 5)
    assert not platform.versions.folder(MODEL, 5).exists()


def test_records_that_are_not_shipped_remain_after_retirement(platform: LocalPlatform) -> None:
    serve(platform, 4)
    spool = platform.versions.folder(MODEL, 4) / "spool"
    (spool / "00000001.jsonl").write_text("a record\n")
    retire(platform, 4)
    assert 4 not in platform.serving(MODEL)
    assert (spool / "00000001.jsonl").exists()
    assert (spool / "sidecar-ended").exists(), "the sidecar must be asked to end, not killed"


def test_a_torn_last_line_does_not_count_as_unshipped(platform: LocalPlatform) -> None:
    serve(platform, 16)
    spool = platform.versions.folder(MODEL, 16) / "spool"
    (spool / "00000001.jsonl").write_text("a record\nhalf of ano")
    (spool / "00000002.jsonl").write_text("half of a record")
    (spool / "checkpoint.json").write_text('{"segment": 1, "offset": 9}')
    retire(platform, 16)
    assert not platform.versions.folder(MODEL, 16).exists()


def test_an_interrupted_retirement_is_not_undone(platform: LocalPlatform) -> None:
    serve(platform, 6)
    served = platform.versions.find(MODEL, 6)
    assert served is not None
    folder = platform.versions.folder(MODEL, 6)
    text = (folder / "version.json").read_text().replace('"retiring": false', '"retiring": true')
    (folder / "version.json").write_text(text)
    platform.supervisor.remove(served.server_program)
    platform.reconcile(MODEL)
    assert platform.serving(MODEL)[6].state == "retiring"
    assert served.server_program not in platform.supervisor.states()

    def back() -> bool:
        platform.serve(MODEL, 6)
        found = platform.serving(MODEL).get(6)
        return found is not None and found.state == "ready"

    wait_for(back)
    retire(platform, 6)


def test_a_port_that_was_taken_while_nothing_ran_is_replaced(tmp_path: Path) -> None:
    home = local_system.install(tmp_path)
    versions = LocalPlatform(home.folder).versions
    ports = {port: free_port() for port in ("http", "grpc", "metrics", "sidecar")}
    before = ServedVersion(MODEL, 1, **ports)
    (home.serving / before.name).mkdir()
    write_struct(home.serving / before.name / "version.json", before)
    with socket.create_server(("127.0.0.1", before.grpc)):
        versions.replace_taken_ports()
    shutil.rmtree(home.read_config().sockets)
    after = versions.find(MODEL, 1)
    assert after is not None
    assert after.grpc != before.grpc
    assert (after.http, after.metrics, after.sidecar) == (
        before.http,
        before.metrics,
        before.sidecar,
    )


def test_ports_that_are_replaced_together_are_different(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = local_system.install(tmp_path)
    versions = LocalPlatform(home.folder).versions
    few = {free_port() for _ in range(8)}
    monkeypatch.setattr("watchkeeper.platforms.local.ports.RANGE", sorted(few))
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        before = ServedVersion(MODEL, 1, taken, taken, taken, taken)
        (home.serving / before.name).mkdir()
        write_struct(home.serving / before.name / "version.json", before)
        versions.replace_taken_ports()
    shutil.rmtree(home.read_config().sockets)
    after = versions.find(MODEL, 1)
    assert after is not None
    assert len({after.http, after.grpc, after.metrics, after.sidecar}) == 4


def test_a_lease_ends_with_its_process(platform: LocalPlatform) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from watchkeeper.platforms.local import LocalPlatform\n"
        "platform = LocalPlatform(Path(sys.argv[1]))\n"
        "print(platform.acquire('watch'), flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(platform.home.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert not platform.acquire("watch")
        holder.kill()
    wait_for(lambda: platform.acquire("watch"))
    assert platform.acquire("watch")


def test_a_version_moves_away_from_a_port_of_another_program(
    platform: LocalPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two systems may choose the same port before either of them listens."""

    class Ready(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    def choose_too_late(**_: object) -> int:
        monkeypatch.setattr(served_versions, "free_port", free_port)
        return other.server_port

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ready) as other:
        threading.Thread(target=other.serve_forever).start()
        try:
            monkeypatch.setattr(served_versions, "free_port", choose_too_late)
            platform.serve(MODEL, 14)
            before = platform.versions.find(MODEL, 14)
            assert before is not None
            assert before.http == other.server_port
            wait_for(lambda: statuses(platform)[14].state == "ready")
            after = platform.versions.find(MODEL, 14)
        finally:
            other.shutdown()
    assert after is not None
    assert after.http != before.http
    server = platform.supervisor.states()["server.pump-failure-v14"].pid
    assert {after.http, after.grpc} <= ports_of(server)
    retire(platform, 14)


def test_a_sidecar_moves_away_from_a_port_of_another_program(
    platform: LocalPlatform,
) -> None:
    serve(platform, 15)
    before = platform.versions.find(MODEL, 15)
    assert before is not None
    sidecar = platform.supervisor.states()["sidecar.pump-failure-v15"].pid
    platform.supervisor.stop(["sidecar.pump-failure-v15"])
    assert not psutil.pid_exists(sidecar)
    with socket.create_server(("127.0.0.1", before.sidecar)):
        wait_for(lambda: statuses(platform)[15] and moved(platform, before))
        after = platform.versions.find(MODEL, 15)
        assert after is not None
        wait_for(lambda: is_listening(after.sidecar))
    assert (after.http, after.grpc) == (before.http, before.grpc)
    retire(platform, 15)


def test_reading_changes_nothing(platform: LocalPlatform) -> None:
    serve(platform, 7)
    served = platform.versions.find(MODEL, 7)
    assert served is not None
    (platform.versions.folder(MODEL, 7) / "starts").write_text(".")  # as a start that is not ready
    platform.supervisor.remove(served.sidecar_program)
    run = TrainingRun("read-only", MODEL, "test")
    (platform.home.runs / run.name).mkdir()
    write_struct(platform.home.runs / run.name / "run.json", run)

    before = snapshot(platform)
    for _ in range(2):
        found = platform.serving(MODEL)[7]
        assert (found.state, found.reason) == ("starting", "its processes are not started yet")
        assert platform.runs(MODEL)[run.name] == "running"
        assert not platform.confirmed(MODEL)
        assert platform.route(MODEL) is None
    assert snapshot(platform) == before

    platform.reconcile(MODEL)
    wait_for(lambda: statuses(platform)[7].state == "ready")
    wait_for(lambda: platform.runs(MODEL)[run.name] == "succeeded")
    retire(platform, 7)


def moved(platform: LocalPlatform, before: ServedVersion) -> bool:
    return platform.versions.find(before.model, before.version) != before


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_model_that_up_no_longer_names_is_drained_and_removed(platform: LocalPlatform) -> None:
    serve(platform, 1, model=OTHER)
    platform.set_route(OTHER, Route({1: 100}))
    config = platform.home.read_config()
    write_struct(platform.home.config_file, msgspec.structs.replace(config, models=(MODEL,)))
    try:
        assert platform.removed_models() == [OTHER]

        def gone() -> bool:
            platform.remove(OTHER)
            return platform.removed_models() == []

        wait_for(gone)
        assert platform.route(OTHER) is None
        assert not any(OTHER in process.name for process in platform.processes())
    finally:
        write_struct(platform.home.config_file, config)
