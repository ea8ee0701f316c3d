"""What a window is compared with."""

import msgspec

from watchkeeper.contracts.version import Statistics
from watchkeeper.drift.statistics.columns import Columns, Feature
from watchkeeper.drift.statistics.null import Null


class Reference(msgspec.Struct, frozen=True):
    """The reference of a version; ``columns`` of shape (rows,) in time order."""

    features: tuple[Feature, ...]
    columns: Columns
    baseline: dict[str, Statistics]
    null: Null
