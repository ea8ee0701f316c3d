"""The settings of one sidecar, read from its environment."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta


class SidecarSettings(msgspec.Struct, frozen=True):
    """Each field is the variable ``WATCHKEEPER_<FIELD>``, see :mod:`watchkeeper.core.settings`."""

    model: Annotated[str, Meta(description="Name of the model.")]
    version: Annotated[int, Meta(description="Version that the server beside the sidecar serves.")]
    model_folder: Annotated[
        Path,
        Meta(description="Files of the version. They may appear after the sidecar has started."),
    ]
    spool: Annotated[Path, Meta(description="Folder that the server writes records to.")]
    ledger_url: Annotated[str, Meta(description="SQLAlchemy URL of the ledger.")]
    platform: Annotated[
        str,
        Meta(
            description="Where training runs are created: `local:<folder>` or `kube:<namespace>`."
        ),
    ]
    port: Annotated[
        int, Meta(description="Port of `/metrics`, `/drift`, `/healthz` and `/readyz`.")
    ]
    host: Annotated[str, Meta(description="Address of the port.")] = "127.0.0.1"
    drift_policy: Annotated[
        dict[str, Any],
        Meta(description="Values that replace those of the version's own drift policy."),
    ] = {}
    retention: Annotated[
        dict[str, Any],
        Meta(description="Values that replace the defaults of the retention policy."),
    ] = {}
    poll_seconds: Annotated[
        float, Meta(description="Time from one look for new records to the next, in seconds.")
    ] = 0.5
    watch_seconds: Annotated[
        float,
        Meta(
            description="Time from one look for a new window or old rows to the next, in seconds."
        ),
    ] = 1.0
    drain_seconds: Annotated[
        float,
        Meta(
            description="How long a graceful shutdown may take to ship the last records, in "
            "seconds. It must be shorter than the termination grace period of the pod."
        ),
    ] = 20.0
