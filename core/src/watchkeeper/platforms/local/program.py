"""Programs: what supervisord keeps alive, as a shell script and a few lines of configuration.

The script holds command and environment, so that nothing of them meets the quoting rules of
supervisord's own format, and so that a person can run a program by hand. Its digest stands in the
command line: a program whose definition changed is a changed program for supervisord, too.
"""

import hashlib
import shlex
from collections.abc import Sequence

import msgspec

ENDLESS = 1_000_000_000


class Program(msgspec.Struct, frozen=True):
    """One supervised process. ``body`` is shell; the last thing it does should be ``exec``.

    Asked to stop, it has ``stop_seconds`` to end before it is killed. ``repeat`` says whether an
    end with exit code 0 is an end (False) or one more reason to start it again.
    """

    name: str
    body: str
    environment: dict[str, str] = {}
    stop_seconds: int = 10
    repeat: bool = True

    def script(self) -> str:
        """Return the shell script that becomes the process."""
        environment = {"PYTHONUNBUFFERED": "1", **self.environment}
        exports = [f"export {key}={shlex.quote(environment[key])}" for key in sorted(environment)]
        head = ["#!/bin/sh", "# Written by Watchkeeper. Started by supervisord in its home."]
        return "\n".join([*head, "set -eu", *exports, self.body]) + "\n"

    def configuration(self) -> str:
        """Return the section for supervisord; all paths in it are relative to the home."""
        digest = hashlib.sha256(self.script().encode()).hexdigest()[:12]
        values = {
            "command": f"/bin/sh supervisor/programs/{self.name}.sh {digest}",
            "autostart": "true",
            "autorestart": "true" if self.repeat else "unexpected",
            # An end within this time is followed by a pause that grows by a second each time.
            "startsecs": 2 if self.repeat else 0,
            "startretries": ENDLESS,
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


def run_in_turn(*commands: Sequence[str]) -> str:
    """Return a body that runs all commands but the last, and becomes the last if they succeeded."""
    *before, last = (shlex.join(command) for command in commands)
    return "\n".join([*before, f"exec {last}"])
