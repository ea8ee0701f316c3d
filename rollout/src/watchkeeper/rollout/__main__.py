"""`python -m watchkeeper.rollout`: turns for each model until it is ended."""

import logging
import signal
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType

from watchkeeper.contracts.logs import set_up_log
from watchkeeper.contracts.settings import SettingsError, read_settings
from watchkeeper.ledger import Ledger
from watchkeeper.platforms import open_platform
from watchkeeper.registry import Registry
from watchkeeper.rollout import loop
from watchkeeper.rollout.controller import Controller
from watchkeeper.rollout.metrics import Health, Metrics, serve
from watchkeeper.rollout.offline import Versions
from watchkeeper.rollout.settings import Settings

HEALTHY_SECONDS = 120.0

log = logging.getLogger("watchkeeper.rollout")


def main() -> int:
    """Run until SIGTERM or SIGINT; turns in progress are finished, unless they take too long."""
    set_up_log()
    ended = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    metrics = Metrics()
    try:
        settings = read_settings(Settings)
        settings.check()
        _ = Registry().client  # imports MLflow here, and not in several threads at once
        health = Health(settings.models, HEALTHY_SECONDS + 10 * settings.turn_seconds)
        server = serve(metrics, health, settings.host, settings.port)
    except (SettingsError, ValueError, OSError) as error:
        sys.stderr.write(f"rollout cannot start: {error}\n")
        return 2
    with tempfile.TemporaryDirectory(prefix="watchkeeper-rollout-") as temporary:
        cache = Path(settings.cache or temporary)
        controllers = [_controller(model, settings, metrics, cache) for model in settings.models]
        log.info("rolls out %s, a turn every %g s", settings.models, settings.turn_seconds)
        for model in loop.run(controllers, settings.turn_seconds, health, ended):
            log.warning("%s: its turn did not end in time and is cut off", model)
    server.shutdown()
    return 0


def _controller(model: str, settings: Settings, metrics: Metrics, cache: Path) -> Controller:
    """Make a controller with connections of its own: a model waits for no other one's."""
    registry = Registry()
    return Controller(
        model,
        open_platform(settings.platform),
        registry,
        Ledger(settings.ledger_url),
        Versions(registry, model, cache / model),
        overrides=settings.policy_of(model),
        metrics=metrics,
    )


if __name__ == "__main__":
    sys.exit(main())
