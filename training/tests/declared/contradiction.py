"""A declaration whose gate names an unknown metric: importing it fails."""

import msgspec
from pump_failure import MODEL as SOUND

from watchkeeper.training.declaration import Gate

MODEL = msgspec.structs.replace(SOUND, name="contradiction", gate=Gate(floors={"auc": 0.9}))
