"""The trials of a search, as text for people."""

from collections import Counter

from watchkeeper.core.gate_report import Trial


def summary(trials: list[Trial]) -> str:
    """Return what was compared, and how many trials have ended in which way."""
    states = Counter(trial.state for trial in trials)
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    return f"{trials[0].metric} by cross-validation, {len(trials)} trials: {counts}"


def outcome(trial: Trial) -> str:
    """Return the value of a trial, or how it has ended without one."""
    if trial.state == "pruned":
        return f"pruned after {len(trial.values)} folds"
    if trial.state == "failed":
        return "failed"
    return "not defined" if trial.value is None else f"{trial.value:.4f}"


def parameters(trial: Trial) -> str:
    """Return the parameters of a trial, and why it has failed."""
    text = ", ".join(f"{name}={value}" for name, value in trial.parameters.items())
    return f"{text}: {trial.message}" if trial.message else text
