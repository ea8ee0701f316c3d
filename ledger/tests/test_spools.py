"""Spools whose sidecar is silent."""

from samples import NOW, spool

from watchkeeper.core.events import (
    SpoolAbandoned,
)
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import history
from watchkeeper.ledger.records import store_records
from watchkeeper.ledger.spools import abandon_spool, open_spools, shipped_until


def test_a_spool_keeps_the_content_of_its_version(ledger: Ledger) -> None:
    store_records(ledger, [], [], spool(50.0, "one"))
    assert open_spools(ledger, "m")[0].digest is None
    store_records(ledger, [], [], spool(60.0, "one", digest="a" * 64))
    assert open_spools(ledger, "m")[0].digest == "a" * 64


def test_a_silent_spool_is_abandoned_until_its_sidecar_writes_again(ledger: Ledger) -> None:
    store_records(ledger, [], [], spool(50.0, "dead", seen=51.0))
    store_records(ledger, [], [], spool(90.0, "alive", seen=91.0))
    dead = next(s for s in open_spools(ledger, "m") if s.id == "dead")
    store_records(ledger, [], [], spool(50.0, "dead", seen=52.0))
    assert not abandon_spool(ledger, dead, NOW, 300.0), "there was news"
    dead = next(s for s in open_spools(ledger, "m") if s.id == "dead")
    assert abandon_spool(ledger, dead, NOW, 300.0)
    assert shipped_until(ledger, "m", [1]) == 90.0
    (abandoned,) = history(ledger, "m", kind=SpoolAbandoned)
    assert (abandoned.version, abandoned.details.shipped_until) == (1, 50.0)
    store_records(ledger, [], [], spool(60.0, "dead", seen=99.0))
    assert shipped_until(ledger, "m", [1]) == 60.0
