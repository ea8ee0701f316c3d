"""A person's orders, and when they are withdrawn.

An order names a version and is meant for one rollout of it. It is withdrawn before that rollout
ends, so that it cannot come alive in a later one of the same version; and where nothing is left
that it could be for. Orders are read before the registry: what is not there was not there later.
"""

from collections.abc import Collection

from watchkeeper.contracts.names import CANDIDATE, PREVIOUS, PRODUCTION
from watchkeeper.rollout.steps import Withdraw
from watchkeeper.rollout.world import World

TO_PROMOTE = ("promote", "abort")  # what is said about a version on its way to production
ALL = (*TO_PROMOTE, "rollback")


def carried_out(world: World, version: int | None, names: Collection[str]) -> Withdraw | None:
    """Withdraw the orders of ``names`` about a version whose rollout is decided."""
    found = {n: v for n, v in world.asks.orders.items() if n in names and v == version}
    return Withdraw(found, f"the rollout of v{version} is decided") if found else None


def pointless(world: World) -> Withdraw | None:
    """Withdraw what cannot be carried out, while no rollout is in progress."""
    production = world.state.production or world.alias(PRODUCTION)
    coming = {world.alias(CANDIDATE), world.alias(PRODUCTION)}
    found = {n: v for n, v in world.asks.orders.items() if n in TO_PROMOTE and v not in coming}
    leaving = world.asks.rollback
    if leaving is not None and (
        leaving != production or world.alias(PREVIOUS) in (None, production)
    ):
        found["rollback"] = leaving
    why = "its version is not what the order was given for any more"
    return Withdraw(found, why) if found else None
