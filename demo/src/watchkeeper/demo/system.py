"""The system as its users reach it: the command line, and the addresses that it tells."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from watchkeeper.contracts.settings import read_settings

ROOT: Final = Path(__file__).resolve().parents[4]
WATCHKEEPER: Final = ROOT / "cli" / ".venv" / "bin" / "watchkeeper"
COMMAND_SECONDS: Final = 60.0


class UnavailableError(RuntimeError):
    """The system did not do what it was asked, or is not there; the message is its own."""


class Endpoints(msgspec.Struct, frozen=True):
    """What ``watchkeeper status`` tells of addresses; senders need no more than the first.

    ``hosts`` is the host by which each model is reached at ``v2``, where it is not its name.
    """

    v2: str
    mlflow: str = ""
    drift: str = ""
    metrics: str = ""
    ledger: str = ""
    hosts: dict[str, str] = {}

    @property
    def address(self) -> str:
        """Host and port of the V2 protocol, for HTTP and gRPC."""
        return urlsplit(self.v2).netloc or self.v2


def home() -> Path:
    """Return the folder that holds the local system's state."""
    return Path(os.environ.get("WATCHKEEPER_HOME") or ".watchkeeper").resolve()


class _Client(msgspec.Struct, frozen=True):
    api_key: str = ""


def api_key() -> str:
    """Return the credential for requests, WATCHKEEPER_API_KEY or what is in its file, if any.

    Raises:
        SettingsError: the file cannot be read.
    """
    return read_settings(_Client).api_key


def feedback_token(folder: Path) -> str:
    """Return the credential for labels.

    Raises:
        UnavailableError: there is none, so no system was started here.
    """
    if given := os.environ.get("WATCHKEEPER_FEEDBACK_TOKEN"):
        return given
    path = Path(
        os.environ.get("WATCHKEEPER_FEEDBACK_TOKEN_FILE", folder / "secrets/feedback-token")
    )
    try:
        return path.read_text().strip()
    except OSError as error:
        raise UnavailableError(f"{path}: no credential for labels ({error.strerror})") from error


async def command(
    *arguments: str, environment: Mapping[str, str] | None = None, seconds: float = COMMAND_SECONDS
) -> Any:
    """Run ``watchkeeper ... --json`` and return what it says.

    Raises:
        UnavailableError: it failed, took longer than ``seconds``, or said no JSON.
    """
    name = f"watchkeeper {' '.join(arguments)}"
    process = await asyncio.create_subprocess_exec(
        str(WATCHKEEPER),
        *arguments,
        "--json",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
        start_new_session=True,  # Ctrl-C is ours to handle: `down` must not die of it
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), seconds)
    except (TimeoutError, asyncio.CancelledError) as error:
        if process.returncode is None:
            process.kill()
            await process.wait()
        if isinstance(error, asyncio.CancelledError):
            raise
        raise UnavailableError(f"{name}: no answer in {seconds:.0f} s") from error
    if process.returncode:
        said = _error(err) or f"exit code {process.returncode}"
        raise UnavailableError(f"{name}: {said}")
    try:
        return msgspec.json.decode(out)
    except msgspec.DecodeError as error:
        raise UnavailableError(f"{name}: said no JSON but {out[:300]!r}") from error


def _error(err: bytes) -> str:
    """Return what a command told last: its error, if it got as far as that."""
    text = err.decode(errors="replace").strip()[-2000:]
    try:
        return str(msgspec.json.decode(text.rpartition("\n")[2], type=dict[str, str])["error"])
    except (msgspec.MsgspecError, KeyError):
        return text
