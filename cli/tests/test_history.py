"""`watchkeeper history` tells of causes before their effects."""

from pathlib import Path

from watchkeeper.ledger import Ledger, migrate
from watchkeeper.ledger.events import Event, emit, history


def test_of_one_time_the_cause_comes_before_its_effect(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    ledger = Ledger(url)
    turn = [
        Event("pump/v3/step-10/1.000", "pump", 3, "step", 5.0, "slower"),
        Event("pump/v3/rolled-back/1.000", "pump", 3, "rolled-back", 5.0, "step 10 %: slower"),
        Event("pump/v2/promoted/5.000", "pump", 2, "promoted", 5.0, "back from v3"),
    ]
    earlier = Event("pump/v3/gate", "pump", 3, "gate-passed", 4.0, "better")
    later = Event("pump/v4/begun/6.000", "pump", 4, "begun", 6.0, "candidate")
    for event in (later, *reversed(turn), earlier):
        emit(ledger, event)
    assert history(ledger, "pump") == [earlier, *turn, later]
    assert history(ledger, "pump", limit=2)[-1] == later
    ledger.close()
