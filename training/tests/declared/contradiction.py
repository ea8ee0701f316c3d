"""A declaration whose gate names an unknown metric: importing it fails."""

from watchkeeper.training.declaration import Gate

MODEL = Gate(floors={"auc": 0.9})  # type: ignore[dict-item]
