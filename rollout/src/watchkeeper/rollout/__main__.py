"""`python -m watchkeeper.rollout`: a turn for each model, again and again, until it is ended."""

import logging
import signal
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType

from watchkeeper.contracts.settings import SettingsError, read_settings
from watchkeeper.ledger import Ledger
from watchkeeper.platforms import open_platform
from watchkeeper.registry import Registry
from watchkeeper.rollout.controller import Controller
from watchkeeper.rollout.metrics import Health, Metrics, serve
from watchkeeper.rollout.offline import Versions
from watchkeeper.rollout.settings import Settings
from watchkeeper.rollout.steps import Wait

HEALTHY_SECONDS = 120.0
AFTER_CHANGE = 0.1

log = logging.getLogger("watchkeeper.rollout")


def main() -> int:
    """Run until SIGTERM or SIGINT; the turn in progress is finished."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    ended = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    metrics = Metrics()
    try:
        settings = read_settings(Settings)
        settings.check()
        health = Health(HEALTHY_SECONDS + 10 * settings.turn_seconds)
        server = serve(metrics, health, settings.host, settings.port)
    except (SettingsError, ValueError, OSError) as error:
        sys.stderr.write(f"rollout cannot start: {error}\n")
        return 2
    with tempfile.TemporaryDirectory(prefix="watchkeeper-rollout-") as temporary:
        controllers = _controllers(settings, metrics, Path(settings.cache or temporary))
        log.info("rolls out %s, a turn every %g s", settings.models, settings.turn_seconds)
        while not ended.is_set():
            steps = [controller.turn() for controller in controllers]
            health.beat()
            # After a change the next step is often known: no need to wait for it.
            changed = any(step is not None and not isinstance(step, Wait) for step in steps)
            ended.wait(
                min(AFTER_CHANGE, settings.turn_seconds) if changed else settings.turn_seconds
            )
    server.shutdown()
    return 0


def _controllers(settings: Settings, metrics: Metrics, cache: Path) -> list[Controller]:
    ledger, registry = Ledger(settings.ledger_url), Registry()
    platform = open_platform(settings.platform)
    return [
        Controller(
            model,
            platform,
            registry,
            ledger,
            Versions(registry, model, cache / model),
            overrides=settings.rollout_policy,
            metrics=metrics,
        )
        for model in settings.models
    ]


if __name__ == "__main__":
    sys.exit(main())
