"""Training runs as processes. Each runs once by its name and is retried like a Job.

runs/<name>/
    run.json    the :class:`TrainingRun`
    tries       one character for each failed attempt
    result      "succeeded", "failed" or "refused", when the run has ended

A run that exits with :data:`watchkeeper.core.exit_codes.EXIT_FATAL` is refused: it has failed, and
more attempts would not help.
Folders with a leading dot are runs that were never created completely.
"""

import os
import shlex
import shutil
import subprocess
import uuid

from watchkeeper.core.exit_codes import EXIT_FATAL, EXIT_SUCCESS
from watchkeeper.platforms.interface import PlatformError, RunRefusedError, RunState, TrainingRun
from watchkeeper.platforms.local.home import Home, read_struct, write_struct
from watchkeeper.platforms.local.program import Program
from watchkeeper.platforms.local.supervisor import Supervisor

MAX_ATTEMPTS = 4  # as a Job with backoffLimit 3
STOP_SECONDS = 15
CHECK_SECONDS = 60.0

# One attempt. supervisord starts it again after an exit code other than 0.
# A stop by supervisord ends the shell and the training and does not count as an attempt: training
# can start again from any point. On Linux, setpriv also ends the training if only the shell is
# killed, because the next attempt must not run beside it. Other systems do not have setpriv.
ATTEMPT = """cd {folder}
if [ -e result ]; then exit 0; fi
settle() {{ echo "$1" > .result && mv .result result; }}
tied=
if setpriv --pdeathsig KILL true 2> /dev/null; then tied="setpriv --pdeathsig KILL"; fi
status=0
$tied {command} || status=$?
if [ $status -eq {success} ]; then settle succeeded; exit 0; fi
printf . >> tries
if [ $status -eq {fatal} ]; then settle refused; exit 0; fi
count=$(wc -c < tries)
if [ "$count" -ge {attempts} ]; then settle failed; exit 0; fi
sleep "$count"
exit $status"""


class Runs:
    """All training runs of a home."""

    def __init__(self, home: Home, supervisor: Supervisor) -> None:
        self.home = home
        self.supervisor = supervisor

    def check(self, run: TrainingRun) -> None:
        """Check the parameters of a run with the role ``check``.

        Raises:
            RunRefusedError: Training does not accept them.
            PlatformError: The check itself failed.
        """
        role = self.home.read_config().role_for("check", run.model)
        try:
            done = subprocess.run(
                [*role.command, run.model, *run.parameter_arguments()],
                env={**os.environ, **role.environment},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=CHECK_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PlatformError(f"{run.name}: cannot check its parameters: {error}") from error
        message = (done.stderr.strip().splitlines() or ["no message"])[-1]
        if done.returncode == EXIT_FATAL:
            raise RunRefusedError(message)
        if done.returncode != EXIT_SUCCESS:
            raise PlatformError(
                f"{run.name}: cannot check its parameters: exit code {done.returncode}: {message}"
            )

    def create(self, run: TrainingRun) -> bool:
        """Start a run; return False if a run of that name exists, in any state."""
        self.supervisor.pid()  # raises before anything is written if supervisord does not answer
        draft = self.home.runs / f".{uuid.uuid4().hex}"
        draft.mkdir()
        write_struct(draft / "run.json", run)
        try:
            draft.rename(self.home.runs / run.name)  # fails if the folder exists and has files
        except OSError:
            shutil.rmtree(draft)
            if not (self.home.runs / run.name / "run.json").exists():
                raise
            return False
        self.supervisor.put(self.program(run))
        return True

    def all(self) -> list[TrainingRun]:
        """Return all runs, by name."""
        found = (
            read_struct(path, TrainingRun) for path in sorted(self.home.runs.glob("[!.]*/run.json"))
        )
        return [run for run in found if run]

    def states(self, model: str) -> dict[str, RunState]:
        """Return the states of a model's runs by name. This method changes nothing."""
        return {run.name: self.state(run) for run in self.all() if run.model == model}

    def find(self, name: str) -> RunState | None:
        """Return the state of a run, None if there is no run of that name."""
        run = read_struct(self.home.runs / name / "run.json", TrainingRun)
        return None if run is None else self.state(run)

    def reconcile(self, model: str) -> None:
        """Start the runs whose start was interrupted, and remove the programs of ended runs."""
        programs = self.supervisor.states().keys()
        for run in self.all():
            if run.model != model:
                continue
            running, name = self.state(run) == "running", program_name(run.name)
            if running and name not in programs:
                self.supervisor.put(self.program(run))
            elif not running and name in programs:
                self.supervisor.remove(name)

    def state(self, run: TrainingRun) -> RunState:
        """Return the state of a run."""
        text = self._result(run.name)
        if text == "":
            return "running"
        if text == "succeeded":
            return "succeeded"
        if text in ("failed", "refused"):
            return "failed"
        result = self.home.runs / run.name / "result"
        raise PlatformError(f"{result}: {text!r} must be 'succeeded', 'failed' or 'refused'")

    def is_refused(self, name: str) -> bool:
        """Return whether a run has ended with the exit code of a defect."""
        return self._result(name) == "refused"

    def _result(self, name: str) -> str:
        result = self.home.runs / name / "result"
        return result.read_text().strip() if result.exists() else ""

    def program(self, run: TrainingRun) -> Program:
        """Return the program of a run."""
        role = self.home.read_config().role_for("training", run.model)
        body = ATTEMPT.format(
            folder=shlex.quote(str(self.home.runs / run.name)),
            command=shlex.join([*role.command, *run.arguments()]),
            attempts=MAX_ATTEMPTS,
            success=EXIT_SUCCESS,
            fatal=EXIT_FATAL,
        )
        return Program(
            name=program_name(run.name),
            body=body,
            environment=role.environment,
            stop_seconds=STOP_SECONDS,
            repeat=False,
        )


def program_name(run: str) -> str:
    """Return the name of the program that executes a run."""
    return f"run.{run}"
