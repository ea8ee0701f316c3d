"""A platform for tests: leases and training runs in memory."""

from watchkeeper.platforms import RunState, TrainingRun


class FakePlatform:
    """The part of a platform that a sidecar uses.

    ``created`` are the runs that were created, in order; ``states`` the runs by name. A test sets
    ``grants_leases`` to False if another process holds every lease.
    """

    def __init__(self) -> None:
        self.created: list[TrainingRun] = []
        self.states: dict[str, RunState] = {}
        self.grants_leases = True

    def acquire(self, lease: str) -> bool:
        return self.grants_leases and bool(lease)

    def release(self, lease: str) -> None:
        assert lease

    def create_run(self, run: TrainingRun) -> bool:
        if run.name in self.states:
            return False
        self.states[run.name] = "running"
        self.created.append(run)
        return True

    def run_log(self, run: str) -> str:
        return f"logs/{run}"

    def runs(self, model: str) -> dict[str, RunState]:
        return {name: state for name, state in self.states.items() if name.startswith(model)}
