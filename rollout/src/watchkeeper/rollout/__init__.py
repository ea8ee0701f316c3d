"""The rollout controller: closes the gap between the registry and what serves, a step a turn."""
