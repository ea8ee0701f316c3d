"""The rollout controller: makes the version that the registry names serve, one action per turn.

Read :mod:`~watchkeeper.rollout.phases` first: it has the table of phases and every decision.
"""
