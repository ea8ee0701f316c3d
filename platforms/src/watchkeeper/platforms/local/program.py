"""Programs of supervisord: each is a shell script and a section of configuration.

The script contains the command and the environment, so that supervisord's quoting rules do not
apply to them and a person can run the program by hand. The digest of the script is an argument of
the command, so supervisord notices when a script has changed.
"""

import hashlib
import shlex
from collections.abc import Sequence

import msgspec

UNLIMITED = 1_000_000_000


class Program(msgspec.Struct, frozen=True):
    """A supervised process.

    Attributes:
        name: Unique in a home.
        body: Shell commands; the last one should start with ``exec``.
        environment: Variables, in addition to those of supervisord.
        stop_seconds: Time between SIGTERM and SIGKILL.
        repeat: Start the program again also after exit code 0.
    """

    name: str
    body: str
    environment: dict[str, str] = {}
    stop_seconds: int = 10
    repeat: bool = True

    def script(self) -> str:
        """Return the shell script."""
        environment = {"PYTHONUNBUFFERED": "1", **self.environment}
        exports = [f"export {key}={shlex.quote(environment[key])}" for key in sorted(environment)]
        head = ["#!/bin/sh", "# Written by Watchkeeper. Started by supervisord in its home."]
        return "\n".join([*head, "set -eu", *exports, self.body]) + "\n"

    def configuration(self) -> str:
        """Return supervisord's section; its paths are relative to the home."""
        digest = hashlib.sha256(self.script().encode()).hexdigest()[:12]
        values = {
            "command": f"/bin/sh supervisor/programs/{self.name}.sh {digest}",
            "autostart": "true",
            "autorestart": "true" if self.repeat else "unexpected",
            # After an end within startsecs, supervisord waits before the next start, each time one
            # second longer.
            "startsecs": 2 if self.repeat else 0,
            "startretries": UNLIMITED,
            "stopwaitsecs": self.stop_seconds,
            "stopasgroup": "true",
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": f"logs/{self.name}.log",
            "stdout_logfile_maxbytes": "10MB",
            "stdout_logfile_backups": 2,
        }
        lines = [f"{key}={value}" for key, value in values.items()]
        return "\n".join([f"[program:{self.name}]", *lines]) + "\n"


def run_in_sequence(*commands: Sequence[str]) -> str:
    """Return a body that runs the commands in order and becomes the last one.

    It ends if a command fails, because scripts run with ``set -e``.
    """
    *before, last = (shlex.join(command) for command in commands)
    return "\n".join([*before, f"exec {last}"])
