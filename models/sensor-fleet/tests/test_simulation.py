"""The simulation: the same seed makes the same rows, also after a stop."""

from sensor_fleet.plant.scenarios import SCENARIOS, STEADY
from sensor_fleet.plant.simulation import Fleet, Turn, decode, encode, new_fleet, next_turn


def turns(fleet: Fleet, first: int, count: int, seed: int = 7) -> tuple[Fleet, list[Turn]]:
    done = []
    for number in range(first, first + count):
        fleet, turn = next_turn(fleet, number, seed, STEADY)
        done.append(turn)
    return fleet, done


def shown(some: list[Turn]) -> list[object]:
    return [
        [{n: v.tolist() for n, v in turn.columns.items()}, turn.failed.tolist()] for turn in some
    ]


def test_the_same_seed_makes_the_same_rows_and_another_seed_others() -> None:
    one, two = (turns(new_fleet(1, 30), 0, 40)[1] for _ in range(2))
    assert shown(one) == shown(two)
    assert shown(turns(new_fleet(2, 30), 0, 40)[1]) != shown(one)
    assert shown(turns(new_fleet(1, 30), 0, 40, seed=8)[1]) != shown(one)


def test_a_stored_fleet_continues_as_if_it_had_never_stopped() -> None:
    whole = turns(new_fleet(1, 30), 0, 60)[1]
    stopped, first = turns(new_fleet(1, 30), 0, 25)
    restored = decode(encode(stopped))
    assert encode(restored) == encode(stopped)
    assert shown(first + turns(restored, 25, 35)[1]) == shown(whole)


def test_the_same_machines_are_in_each_scenario_at_the_beginning() -> None:
    fleet = new_fleet(1, 30)
    for scenario in SCENARIOS.values():
        after, _ = next_turn(fleet, 0, 7, scenario)
        assert after.machines.kind.tolist() == fleet.machines.kind.tolist()
        assert after.machines.site.tolist() == fleet.machines.site.tolist()
