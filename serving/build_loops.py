"""Compile ``forest_loops.c`` when this package is built or installed, see pyproject.toml.

The compiler is Zig's clang, which PyPI has for every common system, because a machine that installs
the package may have none. It builds for the oldest processor of the architecture: on rows of trees,
newer instructions were not faster, and those of AVX-512 took twice as long.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "src/watchkeeper/serving/compiled/forest_loops.c"
OPTIONS = ("-O2", "-mcpu=baseline", "-shared", "-fPIC", "-s", "-Wall", "-Wextra", "-Werror")


class LoopsHook(BuildHookInterface):
    """Puts ``forest_loops.so`` beside its source, and into a wheel for this system."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Compile, and name the library as a part of what is built."""
        source = Path(self.root) / SOURCE
        library = source.with_suffix(".so")
        _compile(source, library)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["artifacts"].append(f"/{library.relative_to(self.root)}")


def _compile(source: Path, library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        new = Path(folder) / library.name
        subprocess.run(
            [sys.executable, "-m", "ziglang", "cc", *OPTIONS, "-o", new, source],
            check=True,
            env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": folder, "ZIG_LOCAL_CACHE_DIR": folder},
        )
        new.replace(library)  # a server that runs keeps the old file
