"""Run the whole loop once: ``python -m watchkeeper.demo``. Exit code 0 means that it has closed."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from watchkeeper.core.folders import make_private
from watchkeeper.demo.demonstration import Demonstration, StageError
from watchkeeper.demo.display import Display
from watchkeeper.demo.plants import PlantError, find, simulated, tables_by_model
from watchkeeper.demo.system import SystemUnavailableError

FOLDER = Path(".watchkeeper") / "demo"


async def _run(arguments: argparse.Namespace) -> int:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - this is a coroutine
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with Display() as display:
        demonstration = Demonstration(
            FOLDER,
            display,
            find(arguments.model),
            data=arguments.data,
            source=arguments.source,
            ledger=arguments.ledger,
            chaos=arguments.chaos,
        )
        summary, problems = await demonstration.run()
        display.summary(summary, problems)
    if problems:
        print(f"logs: {FOLDER / 'system' / 'logs'}, {FOLDER / 'traffic'}", file=sys.stderr)
    return 1 if problems else 0


def drop_settings() -> None:
    """Remove the user's settings of another system from the environment; ports stay."""
    for name in list(os.environ):
        if name.startswith(("WATCHKEEPER_", "MLFLOW_")) and not name.endswith("_PORT"):
            del os.environ[name]


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m watchkeeper.demo",
        description="Run the whole loop once, and compare all answers with offline predictions.",
    )
    parser.add_argument("model", nargs="?", default=simulated()[0], help=" or ".join(simulated()))
    parser.add_argument("--data", type=Path, help="a table (CSV) that is the plant's history")
    parser.add_argument("--source", default="", help="URL of the operational database")
    parser.add_argument("--ledger", default="", help="URL of an empty database for the ledger")
    parser.add_argument("--chaos", action="store_true", help="kill -9 every kind of process once")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    drop_settings()
    make_private(FOLDER)
    FOLDER.parent.chmod(0o700)  # an earlier program may have created it with another mode
    try:
        tables_by_model([arguments.model], arguments.data)
        return asyncio.run(_run(arguments))
    except PlantError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except (StageError, SystemUnavailableError) as error:
        print(f"demo: the loop did not close.\n  {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("demo: interrupted; everything is stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
