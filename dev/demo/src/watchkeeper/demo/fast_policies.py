"""Policies and settings of a trial system: what takes minutes or days elsewhere takes seconds."""

from typing import Final

DRIFT_POLICY: Final = {
    "window": 400,
    "every": 100,
    "confirm": 2,
    "minimum_labels": 600,
    "minimum_positives": 60,
    "label_timeout": 300.0,
    "cool_down": 10.0,
    "training_distance": 10.0,
    "training_distance_rows": 0,
    "settled": 10.0,
}
STEPS: Final = (10, 25, 50)
ROLLOUT_POLICY: Final = {
    "steps": STEPS,
    "step_seconds": 4.0,
    "minimum_requests": 20,
    "latency_floor": 0.005,
    "patience": 300.0,
    "watch_seconds": 5.0,
}
# Processes are killed in each step, and a busy machine shows a step late.
CHAOS_ROLLOUT_POLICY: Final = {**ROLLOUT_POLICY, "step_seconds": 15.0}
# A machine that trains, serves and sends at the same time delays requests for seconds. The server
# must not reject them, so it accepts a delay just below the time limit of the gateway.
QUEUE_SECONDS: Final = "8"
