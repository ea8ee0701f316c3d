"""``python -m watchkeeper.demo``: play the story, exit 0 only if the loop really closed."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from watchkeeper.contracts.folders import make_private
from watchkeeper.demo.display import Display
from watchkeeper.demo.story import StageError, Story
from watchkeeper.demo.system import UnavailableError
from watchkeeper.demo.worlds import DEFAULT, WORLDS, WorldError, find, tables

FOLDER = Path(".watchkeeper") / "demo"


async def _play(arguments: argparse.Namespace) -> int:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with Display() as display:
        story = Story(
            FOLDER, display, find(arguments.model), data=arguments.data, chaos=arguments.chaos
        )
        summary, problems = await story.play()
        display.summary(summary, problems)
    if problems:
        print(f"logs: {FOLDER / 'system' / 'logs'}, {FOLDER / 'traffic'}", file=sys.stderr)
    return 1 if problems else 0


def forget_settings() -> None:
    """Drop what the user has set for another system: the story's own must not touch it."""
    for name in list(os.environ):
        if name.startswith(("WATCHKEEPER_", "MLFLOW_")) and not name.endswith("_PORT"):
            del os.environ[name]


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m watchkeeper.demo", description=__doc__)
    parser.add_argument("model", nargs="?", default=DEFAULT, help=" or ".join(WORLDS))
    parser.add_argument("--data", type=Path, help="the AI4I 2020 table (CSV) instead of machines")
    parser.add_argument("--chaos", action="store_true", help="kill -9 every kind of process once")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    forget_settings()
    make_private(FOLDER)
    FOLDER.parent.chmod(0o700)  # whoever made it did not know what it will hold
    try:
        tables([arguments.model], arguments.data)
        return asyncio.run(_play(arguments))
    except WorldError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except (StageError, UnavailableError) as error:
        print(f"demo: the loop did not close.\n  {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("demo: interrupted; everything is stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
