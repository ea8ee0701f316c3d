"""One row of each model that any version answers."""

from typing import Any

ROWS: dict[str, dict[str, Any]] = {
    "ai4i-failure": {
        "type": "L",
        "air_temperature": 298.1,
        "process_temperature": 308.6,
        "rotational_speed": 1551.0,
        "torque": 42.8,
        "tool_wear": 0.0,
    },
    "warranty-risk": {
        "total_error_count": 3,
        "avg_cycle_time": 50.2,
        "cycle_time_variance": 3.1,
        "rework_ratio": 0.05,
        "vendor_defect_ratio": 0.1,
        "avg_torque": 98.4,
        "torque_deviation": 4.2,
    },
}
