"""alibi-detect's TabularDrift, without the rest of alibi-detect.

The package imports all of its detectors, and with them numba, transformers and pandas: 250 MB, and
seconds at every start. TabularDrift needs NumPy, SciPy and scikit-learn. So the two packages above
its module are entered without their own code, and what only the other detectors need is not
installed (``override-dependencies`` in ``drift/pyproject.toml``).
"""

import importlib.machinery
import sys
from types import ModuleType

_ABOVE = ("alibi_detect", "alibi_detect.cd")  # packages whose __init__ imports all detectors


def _enter(name: str) -> None:
    """Make a package importable from, without running its ``__init__``."""
    if name in sys.modules:
        return
    parent = sys.modules.get(name.rpartition(".")[0])
    folders = list(parent.__path__) if parent else None
    spec = importlib.machinery.PathFinder.find_spec(name, folders)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"{name} is not installed; install drift's lock", name=name)
    module = ModuleType(name)
    module.__path__ = list(spec.submodule_search_locations)
    module.__spec__ = spec
    sys.modules[name] = module


for _name in _ABOVE:
    _enter(_name)

from alibi_detect.cd.tabular import TabularDrift  # noqa: E402 - the packages above come first

__all__ = ["TabularDrift"]
