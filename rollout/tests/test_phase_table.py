"""The table of phases is what the controller does and what the documentation shows."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
from simulated import POLICY, Simulation, first_version
from test_phases import CASES

from watchkeeper.core.policies import override
from watchkeeper.platforms import RolloutCommands
from watchkeeper.rollout.actions import SetRoute
from watchkeeper.rollout.checks import CHECKS
from watchkeeper.rollout.phases import PHASES, decide
from watchkeeper.rollout.state import Phase, parse

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "rollout-phases.md"
Transition = tuple[str, str]


def table() -> set[Transition]:
    return {(phase, end) for phase, row in PHASES.items() for end in row.ends.values()}


def diagram() -> str:
    """Return the state diagram of the table, for the documentation."""
    lines = ["```mermaid", "stateDiagram-v2"]
    for phase, row in PHASES.items():
        source = "[*]" if phase == "no route" else phase
        lines += [f"    {source} --> {end}: {cause}" for cause, end in row.ends.items()]
    return "\n".join([*lines, "```"]).replace("rolling-back", "rolling_back")


def rows() -> str:
    """Return the table as Markdown, for the documentation."""
    lines = ["| phase | meaning | waits for | ends with → next phase |", "|---|---|---|---|"]
    for phase, row in PHASES.items():
        ends = "<br>".join(f"{cause} → `{end}`" for cause, end in row.ends.items())
        lines.append(f"| `{phase}` | {row.meaning} | {row.waits_for} | {ends} |")
    return "\n".join(lines)


def scenarios() -> Iterator[Simulation]:
    """Yield simulations that together make every transition."""
    direct = override(POLICY, {"steps": []})
    for quality in ("good", "slow", "bad-in-production"):
        simulation = first_version()
        simulation.quality[2] = quality
        simulation.registry.register(2)
        yield simulation
    simulation = first_version(policy=direct)
    simulation.registry.register(2)
    yield simulation
    for phase in ("steady", "starting", "promoting"):
        simulation = first_version()
        simulation.registry.register(2)
        simulation.run(lambda s, p=phase: s.state.phase == p)  # type: ignore[misc]
        simulation.platform.standing_commands = RolloutCommands(abort=2)
        yield simulation
    simulation = first_version()
    simulation.registry.register(2)
    simulation.settle()
    simulation.platform.standing_commands = RolloutCommands(rollback=2)
    yield simulation


def played(simulation: Simulation) -> set[Transition]:
    """Return the transitions of a simulation. A next canary step is one, too."""
    simulation.settle()
    written = [a for a in simulation.actions if isinstance(a, SetRoute)]
    states = [(s.phase, s.canary_percent) for s in (parse(a.route.state) for a in written)]
    return {("no route", states[0][0])} | {
        (before[0], after[0])
        for before, after in pairwise(states)
        if before[0] != after[0] or (after[0] == "canary" and before != after)
    }


def test_the_table_has_every_phase() -> None:
    assert set(PHASES) == {"no route", *get_args(Phase)}


def test_the_transitions_of_the_table_are_those_of_rollouts() -> None:
    assert set().union(*map(played, scenarios())) == table()


@pytest.mark.parametrize("name", CASES)
def test_no_decision_makes_a_transition_that_is_not_in_the_table(name: str) -> None:
    observed = CASES[name][0]
    action = decide(observed)
    if isinstance(action, SetRoute):
        before = observed.state.phase if observed.route else "no route"
        after = parse(action.route.state).phase
        assert after == before or (before, after) in table()


def test_the_documentation_shows_the_table() -> None:
    page = PAGE.read_text()
    assert rows() in page, f"replace the table of {PAGE.name} by:\n{rows()}"
    assert diagram() in page, f"replace the diagram of {PAGE.name} by:\n{diagram()}"


def test_the_documentation_has_every_check() -> None:
    page = PAGE.read_text()
    for check in CHECKS:
        name = type(check).__module__.rpartition(".")[2]
        assert f"| {name} |" in page, f"add the check {name!r} to {PAGE.name}"
