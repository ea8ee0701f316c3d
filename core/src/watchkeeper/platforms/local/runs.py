"""Training runs: each happens once by its name, and is tried again when it fails, like a Job.

One that says by its exit code that no further try will help (``contracts.exits``) has failed at
once.

runs/<name>/
    run.json    what was asked for
    tries       a character for each try that failed
    result      "succeeded" or "failed", once that is settled
"""

import shlex
import shutil
import subprocess
import uuid

from watchkeeper.contracts.exits import DONE, GIVE_UP
from watchkeeper.platforms.interface import PlatformError, Run, RunRefusedError, RunState
from watchkeeper.platforms.local.home import Home, Role, read_struct, write_struct
from watchkeeper.platforms.local.program import Program
from watchkeeper.platforms.local.supervisor import Supervisor

TRIES = 4  # as a Job with backoffLimit 3
STOP_SECONDS = 15
CHECK_SECONDS = 60.0

# A stop by supervisord ends shell and training alike, and counts as nothing: the next start
# begins again, which a training run allows at any line. Nor does the training outlive a shell that
# is killed alone, or the next start would be the second one at work (Linux; elsewhere both are).
ONE_TRY = """cd {folder}
if [ -e result ]; then exit 0; fi
settle() {{ echo "$1" > .result && mv .result result; }}
tied=
if setpriv --pdeathsig KILL true 2> /dev/null; then tied="setpriv --pdeathsig KILL"; fi
status=0
$tied {command} || status=$?
if [ $status -eq {done} ]; then settle succeeded; exit 0; fi
printf . >> tries
if [ $status -eq {give_up} ]; then settle failed; exit 0; fi
count=$(wc -c < tries)
if [ "$count" -ge {tries} ]; then settle failed; exit 0; fi
sleep "$count"
exit $status"""


class Runs:
    """All training runs of a home."""

    def __init__(self, home: Home, supervisor: Supervisor) -> None:
        self.home = home
        self.supervisor = supervisor

    def check(self, run: Run) -> None:
        """Have the role ``check`` look at a run's parameters.

        Raises:
            RunRefusedError: training would refuse them.
            PlatformError: it could not be asked.
        """
        role = self.home.read_installation().role("check")
        try:
            done = subprocess.run(
                [*role.command, run.model, *run.parameter_arguments()],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=CHECK_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PlatformError(f"{run.name}: its parameters cannot be checked: {error}") from error
        said = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        if done.returncode == GIVE_UP:
            raise RunRefusedError(said[0])
        if done.returncode != DONE:
            why = f"exit code {done.returncode}: {said[0]}"
            raise PlatformError(f"{run.name}: its parameters cannot be checked: {why}")

    def create(self, run: Run) -> bool:
        """Start a run; False when one of its name exists, whatever became of it."""
        draft = self.home.runs / f".{uuid.uuid4().hex}"
        draft.mkdir()
        write_struct(draft / "run.json", run)
        try:
            draft.rename(self.home.runs / run.name)  # never replaces a folder that holds something
        except OSError:
            shutil.rmtree(draft)
            if not (self.home.runs / run.name / "run.json").exists():
                raise
            return False
        self.supervisor.put(self.program(run))
        return True

    def all(self) -> list[Run]:
        """Return all runs; hidden folders are drafts of some that were never created."""
        found = (read_struct(path, Run) for path in sorted(self.home.runs.glob("[!.]*/run.json")))
        return [run for run in found if run]

    def states(self, model: str) -> dict[str, RunState]:
        """Return what became of a model's runs; one whose start was cut off is started."""
        known = self.supervisor.states().keys()
        found: dict[str, RunState] = {}
        for run in self.all():
            if run.model != model:
                continue
            found[run.name] = self.state(run)
            if found[run.name] == "running" and _program_name(run) not in known:
                self.supervisor.put(self.program(run))
            elif found[run.name] != "running" and _program_name(run) in known:
                self.supervisor.remove(_program_name(run))
        return found

    def state(self, run: Run) -> RunState:
        """Tell what became of a run."""
        result = self.home.runs / run.name / "result"
        if not result.exists():
            return "running"
        text = result.read_text().strip()
        if text == "succeeded":
            return "succeeded"
        if text == "failed":
            return "failed"
        raise PlatformError(f"{result}: {text!r} is neither 'succeeded' nor 'failed'")

    def program(self, run: Run) -> Program:
        """Describe the process of a run."""
        role: Role = self.home.read_installation().role("training")
        body = ONE_TRY.format(
            folder=shlex.quote(str(self.home.runs / run.name)),
            command=shlex.join([*role.command, *run.arguments()]),
            tries=TRIES,
            done=DONE,
            give_up=GIVE_UP,
        )
        return Program(
            name=_program_name(run),
            body=body,
            environment=role.environment,
            stop_seconds=STOP_SECONDS,
            repeat=False,
        )


def _program_name(run: Run) -> str:
    return f"run.{run.name}"
