"""Runs the commands of docs/how-to/install.md, from the namespaces to the uninstall.

Fenced blocks of the language sh are run, in one bash, in their order, as they are. Blocks of the
languages text and yaml are examples.
"""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from declared_models import output_names
from diagnostics import write_diagnostics
from installation import RELEASE
from kube import ENVIRONMENT, ROOT, get, kubectl, run_command

PAGE = ROOT / "docs/how-to/install.md"
NAMESPACES = ("models", "models-training", "plant")
WIDTH = 100
LIMIT_SECONDS = 1500.0
# What the blocks do, in order, by a part of each.
STEPS = (
    "kubectl create namespace",
    "manifests/trial-database.yaml",
    "watchkeeper.demo.seed",
    "kubectl create secret generic plant",
    "cat > values.yaml",
    "helm install",
    "--for=create",
    "watchkeeper status",
    "helm test",
    "curl",
    "--from=cronjob/watchkeeper-backup",
    "helm upgrade",
    "helm rollback",
    "helm uninstall",
    "kubectl delete namespace",
)


def blocks() -> list[tuple[str, str]]:
    """Return language and text of all fenced blocks."""
    found: list[tuple[str, str]] = re.findall(
        r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    return found


def commands() -> list[str]:
    return [text for language, text in blocks() if language == "sh"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder like the root of the checkout, for the files that the commands write.

    Whatever the commands leave is removed at the end.
    """
    if found := [name for name in NAMESPACES if get("namespace", name)]:
        pytest.skip(f"exists already, and the page creates it: namespace {', '.join(found)}")
    for path in ROOT.iterdir():
        (tmp_path / path.name).symlink_to(path)
    for name in ("values.yaml", "port-forward.log"):
        (tmp_path / name).unlink(missing_ok=True)
    try:
        yield tmp_path
    finally:
        words = (RELEASE, f"--namespace={NAMESPACES[0]}", "--ignore-not-found", "--timeout=3m")
        run_command("helm", "uninstall", *words, seconds=200.0)
        kubectl("delete", "namespace", *NAMESPACES, "--ignore-not-found", seconds=180.0)
        storage = f"clusterstoragecontainers/{RELEASE}.{NAMESPACES[0]}.files"
        kubectl("delete", storage, "--ignore-not-found")


def test_every_block_is_run_or_marked_as_an_example() -> None:
    assert {language for language, _ in blocks()} == {"sh", "text", "yaml"}
    outside = re.sub(r"^```.*?^```$", "", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert "\n    " not in outside, "an indented block has no language"


def test_the_blocks_contain_every_step() -> None:
    text = "".join(commands())
    positions = [text.find(step) for step in STEPS]
    assert -1 not in positions, STEPS[positions.index(-1)]
    assert positions == sorted(positions)


def test_commands_fit_into_a_line() -> None:
    lines = [line for language, text in blocks() if language != "yaml" for line in text.split("\n")]
    assert [line for line in lines if len(line) > WIDTH] == []


def test_the_commands_install_use_upgrade_and_remove_the_system(folder: Path) -> None:
    status, output = run_script("".join(["set -euxo pipefail\n", *commands()]), folder)
    if status:
        kept = write_diagnostics(NAMESPACES, ROOT / ".watchkeeper/e2e/install-page")
        pytest.fail(f"{output[-6000:]}\ndiagnostics are in {kept}")
    (model,) = set(re.findall(r"demo\.seed (\S+)", "".join(commands())))
    for protocol in ("HTTP", "gRPC"):
        assert f"{model} version 1 answers over {protocol} through the gateway" in output
    for name in output_names(model):
        assert f'"name":"{name}"' in output.replace(" ", "")
    assert re.search(r"^job.batch/backup-\d+ condition met$", output, re.MULTILINE)
    notes = output[output.rindex("NOTES:") :]
    for shown in (
        f"kubectl exec -n {NAMESPACES[0]} deploy/{RELEASE}-cli -- watchkeeper status\n",
        f"helm test {RELEASE} -n {NAMESPACES[0]}\n",
        f"kubectl delete httproutes,inferenceservices,gateways -n {NAMESPACES[0]} ",
    ):
        assert shown in notes
    assert not any(get("namespace", name) for name in NAMESPACES)


def run_script(script: str, folder: Path) -> tuple[int, str]:
    """Run a script in bash; return its status and what it prints, errors too.

    What it has left in the background ends, too.
    """
    log = folder / "script.log"
    # A program of its own keeps the time: the script must also end if this process is killed.
    limited = ("timeout", "--verbose", "--kill-after=10", str(LIMIT_SECONDS), "bash", "-c", script)
    with log.open("w") as file:
        process = subprocess.Popen(
            limited,
            cwd=folder,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return status, log.read_text()
