"""Counting in the ledger, read-only: what the story waits for and what the summary says."""

from collections import Counter
from typing import Final

import msgspec
from sqlalchemy import func, select

from watchkeeper.contracts.record import OK
from watchkeeper.demo.shares import Step
from watchkeeper.ledger import Ledger
from watchkeeper.ledger import tables as t
from watchkeeper.ledger.events import Event, history

EVENTS: Final = 10_000


class Kept(msgspec.Struct, frozen=True):
    """Request ids in the ledger: answered ones by protocol, and the others."""

    answered: dict[str, set[str]]
    refused: set[str]


def events(ledger: Ledger, model: str) -> list[Event]:
    """Return every decision so far, oldest first."""
    return history(ledger, model, limit=EVENTS)


def kept(ledger: Ledger, model: str) -> Kept:
    """Return the ids of all predictions."""
    p = t.predictions.c
    answered: dict[str, set[str]] = {"http": set(), "grpc": set()}
    refused: set[str] = set()
    with ledger.read() as connection:
        for row in connection.execute(select(p.id, p.protocol, p.status).where(p.model == model)):
            (answered[row.protocol] if row.status == OK else refused).add(row.id)
    return Kept(answered, refused)


def count_predictions(ledger: Ledger, model: str) -> int:
    """Count the answered predictions."""
    p = t.predictions.c
    query = select(func.count()).where(p.model == model, p.status == OK)
    with ledger.read() as connection:
        return int(connection.execute(query).scalar_one())


def count_labels(ledger: Ledger, model: str) -> int:
    """Count the labels."""
    query = select(func.count()).select_from(t.labels).where(t.labels.c.model == model)
    with ledger.read() as connection:
        return int(connection.execute(query).scalar_one())


def count_reports(ledger: Ledger, model: str, version: int, *, drifted: bool) -> int:
    """Count the drift reports of a version with that outcome."""
    r = t.drift_reports.c
    query = select(func.count()).where(
        r.model == model, r.version == version, r.drifted.is_(drifted)
    )
    with ledger.read() as connection:
        return int(connection.execute(query).scalar_one())


def steps(ledger: Ledger, model: str, known: list[Event]) -> list[Step]:
    """Return all traffic steps, with what was asked while the gateway had confirmed them."""
    p = t.predictions.c
    found = []
    for event in known:
        if event.kind != "step":
            continue
        query = (
            select(p.protocol, p.version, func.count())
            .where(
                p.model == model,
                p.time >= event.details["since"],
                p.time < event.details["until"],
            )
            .group_by(p.protocol, p.version)
        )
        asked: Counter[str] = Counter()
        canary: Counter[str] = Counter()
        with ledger.read() as connection:
            for protocol, version, number in connection.execute(query):
                asked[protocol] += number
                if version == event.version:
                    canary[protocol] += number
        found.append(
            Step(
                version=event.version or 0,
                percent=event.details["percent"],
                http_requests=asked["http"],
                http_canary=canary["http"],
                grpc_requests=asked["grpc"],
                grpc_canary=canary["grpc"],
                verdict=event.details["verdict"],
                reason=event.reason,
            )
        )
    return found
