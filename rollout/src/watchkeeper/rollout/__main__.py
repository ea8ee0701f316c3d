"""``python -m watchkeeper.rollout``: take turns for each model until SIGTERM or SIGINT."""

import logging
import signal
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Final

from watchkeeper.core.logs import configure_logging
from watchkeeper.core.settings import SettingsError, read_settings
from watchkeeper.ledger import Ledger
from watchkeeper.platforms import open_platform
from watchkeeper.registry import Registry
from watchkeeper.rollout import loop
from watchkeeper.rollout.controller import Controller
from watchkeeper.rollout.metrics import Health, RolloutMetrics, serve
from watchkeeper.rollout.settings import RolloutSettings
from watchkeeper.rollout.version_cache import VersionCache

HEALTHY_SECONDS: Final = 120.0  # plus ten turns; a draining server may take that long

log = logging.getLogger("watchkeeper.rollout")


def main() -> int:
    """Run until SIGTERM or SIGINT, then finish the turns in progress.

    Returns:
        The exit code: 0, or 2 if a setting is wrong or the port is in use.
    """
    configure_logging()
    ended = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    metrics = RolloutMetrics()
    try:
        settings = read_settings(RolloutSettings)
        settings.check()
        _ = Registry().client  # imports MLflow here, not in several threads at the same time
        health = Health(settings.models, HEALTHY_SECONDS + 10 * settings.turn_seconds)
        server = serve(metrics, health, settings.host, settings.port)
    except (SettingsError, ValueError, OSError) as error:
        sys.stderr.write(f"rollout cannot start: {error}\n")
        return 2
    with tempfile.TemporaryDirectory(prefix="watchkeeper-rollout-") as temporary:
        cache = Path(settings.cache or temporary)
        controllers = [_controller(model, settings, metrics, cache) for model in settings.models]
        log.info("rolls out %s, one turn every %g s", settings.models, settings.turn_seconds)
        for model in loop.run(controllers, settings.turn_seconds, health, ended):
            log.warning("%s: its turn did not end in time and is cut off", model)
    server.shutdown()
    return 0


def _controller(
    model: str, settings: RolloutSettings, metrics: RolloutMetrics, cache: Path
) -> Controller:
    """Make a controller. It has connections of its own, so that models do not wait for another."""
    registry = Registry()
    return Controller(
        model,
        open_platform(settings.platform),
        registry,
        Ledger(settings.ledger_url),
        VersionCache(registry, model, cache / model),
        overrides=settings.policy_overrides(model),
        metrics=metrics,
    )


if __name__ == "__main__":
    sys.exit(main())
