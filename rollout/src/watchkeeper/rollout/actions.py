"""The actions of the controller, and how one is carried out.

Each action changes one thing in one place and is idempotent. A controller that is killed between
two actions therefore leaves a state that the next one knows. ``reason`` is for people.
"""

import msgspec

from watchkeeper.core.names import Alias
from watchkeeper.platforms import Platform, Route
from watchkeeper.registry import ROLLOUT_TAG, Registry


class Wait(msgspec.Struct, frozen=True):
    """Change nothing. ``key`` names the wait; it stays the same while ``reason`` counts seconds."""

    reason: str
    key: str


class Serve(msgspec.Struct, frozen=True):
    """Serve a version, or give a served version the number of servers that is configured now.

    ``digest`` is the content to serve; "" if it is not known.
    """

    version: int
    reason: str
    digest: str = ""


class Retire(msgspec.Struct, frozen=True):
    """Stop serving a version. It is repeated until the platform no longer shows the version."""

    version: int
    reason: str


class SetRoute(msgspec.Struct, frozen=True):
    """Write the route: weights, state, or both, in one write."""

    route: Route
    reason: str


class SetAlias(msgspec.Struct, frozen=True):
    """Point an alias at a version."""

    alias: Alias
    version: int
    reason: str


class DeleteAlias(msgspec.Struct, frozen=True):
    """Delete an alias."""

    alias: Alias
    reason: str


class SetTag(msgspec.Struct, frozen=True):
    """Write the result of a rollout on its version."""

    version: int
    text: str
    reason: str


class RegisterAgain(msgspec.Struct, frozen=True):
    """Register the content ``digest`` of a version again, under a number that was never used.

    ``above`` is the highest number that was used before.
    """

    version: int
    digest: str
    above: int
    reason: str


class WithdrawCommands(msgspec.Struct, frozen=True):
    """Withdraw commands, given as the version of each. A command given since then stays."""

    commands: dict[str, int]
    reason: str


Action = (
    Wait
    | Serve
    | Retire
    | SetRoute
    | SetAlias
    | DeleteAlias
    | SetTag
    | RegisterAgain
    | WithdrawCommands
)


def changes_registry(action: Action) -> bool:
    """Whether an action changes the registry; the others change the platform, or nothing."""
    return isinstance(action, SetAlias | DeleteAlias | SetTag | RegisterAgain)


def carry_out(action: Action, model: str, platform: Platform, registry: Registry) -> None:
    """Carry out an action for a model.

    Raises:
        PlatformError, RegistryError, OSError: the change may have been made or not. The next turn
            reads which, and decides again.
    """
    match action:
        case Wait():
            pass
        case Serve(version=version, digest=digest):
            platform.serve(model, version, digest)
        case Retire(version=version):
            platform.retire(model, version)
        case SetRoute(route=route):
            platform.set_route(model, route)
        case SetAlias(alias=alias, version=version):
            registry.set_alias(model, alias, version)
        case DeleteAlias(alias=alias):
            registry.delete_alias(model, alias)
        case SetTag(version=version, text=text):
            registry.set_tag(model, version, ROLLOUT_TAG, text)
        case RegisterAgain(version=version, digest=digest, above=above):
            registry.register_again(model, version, digest, above)
        case WithdrawCommands(commands=commands):
            platform.change_commands(model, lambda standing: standing.without(commands))


def shares(weights: dict[int, int]) -> str:
    """Return weights for people, for example "v1 90 %, v2 10 %"."""
    return ", ".join(f"v{version} {weight} %" for version, weight in sorted(weights.items()))


def describe(action: Action) -> str:  # noqa: PLR0911 - one line per action
    """Describe an action for the log, for example "route v1 90 %, v2 10 % (canary)"."""
    match action:
        case Wait():
            return "waits"
        case Serve(version=version):
            return f"serve v{version}"
        case Retire(version=version):
            return f"retire v{version}"
        case SetRoute(route=route):
            return f"route {shares(route.weights)} ({route.state.get('phase')})"
        case SetAlias(alias=alias, version=version):
            return f"{alias} := v{version}"
        case DeleteAlias(alias=alias):
            return f"delete alias {alias}"
        case SetTag(version=version, text=text):
            return f"tag v{version} {text.partition(':')[0]!r}"
        case RegisterAgain(version=version):
            return f"register the content of v{version} again"
        case WithdrawCommands(commands=commands):
            return f"withdraw {', '.join(f'{n} v{v}' for n, v in commands.items())}"
