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
from watchkeeper.core.secret_changes import SecretFiles
from watchkeeper.core.settings import SettingsError, read_settings
from watchkeeper.ledger import Ledger
from watchkeeper.platforms import open_platform
from watchkeeper.registry import Registry
from watchkeeper.rollout import loop
from watchkeeper.rollout.announcements import Announcements
from watchkeeper.rollout.controller import Controller
from watchkeeper.rollout.metrics import Health, RolloutMetrics, serve
from watchkeeper.rollout.removal import RemovedModels
from watchkeeper.rollout.settings import RolloutSettings
from watchkeeper.rollout.training_runs import TrainingRuns
from watchkeeper.rollout.version_cache import VersionCache

HEALTHY_SECONDS: Final = 120.0  # plus ten turns; a draining server may take that long

log = logging.getLogger("watchkeeper.rollout")


def main() -> int:
    """Run until SIGTERM, SIGINT or a changed secret, then finish the turns in progress.

    Returns:
        The exit code: 0, or 2 if a setting is wrong or the port is in use.
    """
    configure_logging()
    secrets = SecretFiles()
    ended = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    metrics = RolloutMetrics()
    with tempfile.TemporaryDirectory(prefix="watchkeeper-rollout-") as temporary:
        try:
            settings = read_settings(RolloutSettings)
            settings.check()
            _ = Registry().client  # imports MLflow here, not in several threads at the same time
            controllers = _controllers(settings, metrics, Path(settings.cache or temporary))
            patience = HEALTHY_SECONDS + 10 * settings.turn_seconds
            health = Health([each.name for each in controllers], patience)
            server = serve(metrics, health, settings.host, settings.port)
        except (SettingsError, ValueError, OSError) as error:
            sys.stderr.write(f"rollout cannot start: {error}\n")
            return 2
        secrets.on_change(ended.set)
        log.info("rolls out %s, one turn every %g s", settings.models, settings.turn_seconds)
        for name in loop.run(controllers, settings.turn_seconds, health, ended):
            log.warning("%s: its turn did not end in time and is cut off", name)
        server.shutdown()
    return 0


def _controllers(
    settings: RolloutSettings, metrics: RolloutMetrics, cache: Path
) -> list[loop.TurnTaker]:
    """Make all controllers. Each has connections of its own, so that none waits for another."""
    controllers: list[loop.TurnTaker] = []
    for model in settings.models:
        registry = Registry()
        controllers += [
            Controller(
                model,
                open_platform(settings.platform),
                registry,
                Ledger(settings.ledger_url),
                VersionCache(registry, model, cache / model),
                overrides=settings.policy_overrides(model),
                metrics=metrics,
            ),
            TrainingRuns(
                model,
                open_platform(settings.platform),
                Registry(),
                Ledger(settings.ledger_url),
                metrics,
                code_version=settings.code_versions.get(model, settings.code_version),
                starts=model in settings.trained_models,
                adopts=settings.adopt.get(model),
            ),
            Announcements(
                model, open_platform(settings.platform), Ledger(settings.ledger_url), metrics
            ),
        ]
    platform, ledger = open_platform(settings.platform), Ledger(settings.ledger_url)
    removed = RemovedModels(platform, ledger, metrics, delay=settings.removal_seconds)
    return [*controllers, removed]


if __name__ == "__main__":
    sys.exit(main())
