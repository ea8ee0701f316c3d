"""The steps of the controller. Each is one change in one place, so that a controller killed
between any two of them finds a world that it knows.
"""

import msgspec

from watchkeeper.contracts.names import Alias
from watchkeeper.platforms import Route


class Wait(msgspec.Struct, frozen=True):
    """Change nothing. ``about`` is the same for as long as it is the same wait."""

    why: str
    about: str


class Serve(msgspec.Struct, frozen=True):
    """Have a version served, or one that is served by as many servers as are wanted now."""

    version: int
    why: str


class Retire(msgspec.Struct, frozen=True):
    """Stop serving a version."""

    version: int
    why: str


class SetRoute(msgspec.Struct, frozen=True):
    """Write the route: weights, state, or both, in one write."""

    route: Route
    why: str


class SetAlias(msgspec.Struct, frozen=True):
    """Point an alias at a version."""

    alias: Alias
    version: int
    why: str


class DropAlias(msgspec.Struct, frozen=True):
    """Remove an alias."""

    alias: Alias
    why: str


class Tag(msgspec.Struct, frozen=True):
    """Write what became of a version's rollout on the version itself."""

    version: int
    text: str
    why: str


class Withdraw(msgspec.Struct, frozen=True):
    """Withdraw a person's orders, unless others have been given since: the version of each."""

    orders: dict[str, int]
    why: str


Step = Wait | Serve | Retire | SetRoute | SetAlias | DropAlias | Tag | Withdraw
