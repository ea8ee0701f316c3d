"""What a label is. Every target is binary, so a label is 1 (it happened) or 0 (it did not).

The server refuses other values. A ledger that an older server filled can contain them; whatever
counts or reads labels ignores them.
"""

from typing import Final

NEGATIVE: Final = 0.0
POSITIVE: Final = 1.0
LABELS: Final = (NEGATIVE, POSITIVE)
