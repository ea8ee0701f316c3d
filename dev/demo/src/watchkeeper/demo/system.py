"""The system as its users reach it: through the command line and the addresses that it prints."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from watchkeeper.core.settings import read_settings

ROOT: Final = Path(__file__).resolve().parents[5]
WATCHKEEPER: Final = ROOT / ".venv" / "bin" / "watchkeeper"
# A command does not report its progress, so this is far more than a busy machine needs.
COMMAND_SECONDS: Final = 600.0


class SystemUnavailableError(RuntimeError):
    """The system, or a process of the demonstration, does not run or does not do its work."""


class Endpoints(msgspec.Struct, frozen=True):
    """The addresses in ``watchkeeper status --json``; senders need only the first.

    ``hosts`` maps models to the host by which ``v2`` finds them.
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


class _ClientSettings(msgspec.Struct, frozen=True):
    api_key: str = ""


def home() -> Path:
    """Return the folder of the local system."""
    return Path(os.environ.get("WATCHKEEPER_HOME") or ".watchkeeper").resolve()


def api_key() -> str:
    """Return the API key of WATCHKEEPER_API_KEY or WATCHKEEPER_API_KEY_FILE; empty without one.

    Raises:
        SettingsError: the file cannot be read.
    """
    return read_settings(_ClientSettings).api_key


def feedback_token(folder: Path) -> str:
    """Return the token for labels, from the environment or from the system in ``folder``.

    Raises:
        SystemUnavailableError: there is no token, so no system was started in that folder.
    """
    if token := os.environ.get("WATCHKEEPER_FEEDBACK_TOKEN"):
        return token
    path = Path(
        os.environ.get("WATCHKEEPER_FEEDBACK_TOKEN_FILE", folder / "secrets/feedback-token")
    )
    try:
        return path.read_text().strip()
    except OSError as error:
        raise SystemUnavailableError(
            f"{path}: no token for labels ({error.strerror}); start the system with 'make up', or "
            "set WATCHKEEPER_FEEDBACK_TOKEN"
        ) from error


async def command(
    *arguments: str, environment: Mapping[str, str] | None = None, seconds: float = COMMAND_SECONDS
) -> Any:
    """Run ``watchkeeper ... --json`` and return the decoded output.

    Raises:
        SystemUnavailableError: the command failed, took longer than ``seconds``, or did not print
            JSON.
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
        start_new_session=True,  # Ctrl-C in the terminal must not interrupt `down`
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), seconds)
    except (TimeoutError, asyncio.CancelledError) as error:
        if process.returncode is None:
            process.kill()
            await process.wait()
        if isinstance(error, asyncio.CancelledError):
            raise
        raise SystemUnavailableError(f"{name}: no answer in {seconds:.0f} s") from error
    if process.returncode:
        message = _error_message(err) or f"exit code {process.returncode}"
        raise SystemUnavailableError(f"{name}: {message}")
    try:
        return msgspec.json.decode(out)
    except msgspec.DecodeError as error:
        raise SystemUnavailableError(
            f"{name}: expected JSON, the output is {out[:300]!r}"
        ) from error


def _error_message(err: bytes) -> str:
    """Return the error in the last line of standard error, or all of it if that is no JSON."""
    text = err.decode(errors="replace").strip()[-2000:]
    try:
        return str(msgspec.json.decode(text.rpartition("\n")[2], type=dict[str, str])["error"])
    except (msgspec.MsgspecError, KeyError):
        return text
