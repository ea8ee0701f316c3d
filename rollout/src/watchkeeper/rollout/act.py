"""Carrying out one step: one call, in one place."""

from watchkeeper.platforms import Platform
from watchkeeper.registry import ROLLOUT_TAG, Registry
from watchkeeper.rollout.steps import (
    DropAlias,
    Retire,
    Serve,
    SetAlias,
    SetRoute,
    Step,
    Tag,
    Wait,
    Withdraw,
)


def in_registry(step: Step) -> bool:
    """Tell whether a step changes the registry; all others change the platform, or nothing."""
    return isinstance(step, SetAlias | DropAlias | Tag)


def act(step: Step, model: str, platform: Platform, registry: Registry) -> None:
    """Carry a step out; raises what the platform or the registry raises."""
    match step:
        case Wait():
            pass
        case Serve(version=version):
            platform.serve(model, version)
        case Retire(version=version):
            platform.retire(model, version)
        case SetRoute(route=route):
            platform.set_route(model, route)
        case SetAlias(alias=alias, version=version):
            registry.set_alias(model, alias, version)
        case DropAlias(alias=alias):
            registry.drop_alias(model, alias)
        case Tag(version=version, text=text):
            registry.tag(model, version, ROLLOUT_TAG, text)
        case Withdraw(orders=orders):
            platform.ask(model, lambda asks: asks.without(orders))


def describe(step: Step) -> str:  # noqa: PLR0911 - one line a kind
    """Say in words what a step changes."""
    match step:
        case Wait():
            return "waits"
        case Serve(version=version):
            return f"serve v{version}"
        case Retire(version=version):
            return f"retire v{version}"
        case SetRoute(route=route):
            weights = ", ".join(f"v{v} {w} %" for v, w in sorted(route.weights.items()))
            return f"route {weights} ({route.state.get('phase')})"
        case SetAlias(alias=alias, version=version):
            return f"{alias} := v{version}"
        case DropAlias(alias=alias):
            return f"drop {alias}"
        case Tag(version=version, text=text):
            return f"tag v{version} {text.partition(':')[0]!r}"
        case Withdraw(orders=orders):
            return f"withdraw {', '.join(f'{n} v{v}' for n, v in orders.items())}"
