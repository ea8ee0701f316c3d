"""The ledger: predictions, labels, drift reports, episodes and events in one SQL database."""

from watchkeeper.ledger.database import Ledger, migrate

__all__ = ["Ledger", "migrate"]
