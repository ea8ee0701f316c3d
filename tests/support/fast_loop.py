"""Settings of a local system whose whole loop takes minutes."""

import json
from typing import Final

from watchkeeper.demo.fast_policies import DRIFT_POLICY, QUEUE_SECONDS, ROLLOUT_POLICY

FAST_LOOP: Final = {
    "WATCHKEEPER_DRIFT_POLICY": json.dumps({**DRIFT_POLICY, "minimum_positives": 20}),
    "WATCHKEEPER_ROLLOUT_POLICY": json.dumps(ROLLOUT_POLICY),
    "WATCHKEEPER_TURN_SECONDS": "0.5",
    "WATCHKEEPER_QUEUE_SECONDS": QUEUE_SECONDS,
}
