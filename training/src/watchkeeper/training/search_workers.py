"""Processes of this machine that carry out the trials of a study."""

import logging
import multiprocessing
import os
import pickle
import threading
from multiprocessing.process import BaseProcess
from pathlib import Path

from watchkeeper.core.exit_codes import EXIT_RETRY
from watchkeeper.core.logs import FORMAT
from watchkeeper.training import CannotTrainError
from watchkeeper.training.objective import Objective
from watchkeeper.training.study import load_study
from watchkeeper.training.study_storage import open_storage
from watchkeeper.training.trials import work

log = logging.getLogger(__name__)


def run_workers(count: int, journal: Path, objective: Objective) -> bool:
    """Start workers, wait for their end, and return whether all of them have ended without error.

    A worker that is killed loses its trial, and the others go on.

    Args:
        count: how many processes.
        journal: of the study, see :func:`watchkeeper.training.study_storage.open_storage`.
        objective: what they work on.

    Raises:
        CannotTrainError: the declaration cannot be sent to another process.
    """
    try:
        content = pickle.dumps(objective)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise CannotTrainError(
            f"search: workers is {count}, and the declaration cannot be sent to other processes: "
            f"{error}; define its functions by name in a module, or declare workers=1"
        ) from error
    # Not fork: threads of this process, such as those of OpenMP, would be missing in the copies.
    context = multiprocessing.get_context("spawn")
    level = logging.getLogger("watchkeeper").getEffectiveLevel()
    workers: list[BaseProcess] = [
        context.Process(target=_run, args=(journal, content, number, level))
        for number in range(1, count + 1)
    ]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.kill()
    codes = [worker.exitcode for worker in workers if worker.exitcode]
    for code in codes:
        log.warning("search: a worker has ended with exit code %d", code)
    return not codes


def _run(journal: Path, content: bytes, number: int, level: int) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.basicConfig(level=logging.WARNING, format=FORMAT)
    logging.getLogger("watchkeeper").setLevel(level)
    objective: Objective = pickle.loads(content)  # noqa: S301 - from the process that started this
    # With one seed for all, the workers would try the same sets.
    work(load_study(open_storage(journal), objective.parameters.seed + number), objective)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(EXIT_RETRY)
