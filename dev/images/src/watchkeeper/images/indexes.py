"""The settings of this machine's package index, for a build; they do not enter the image."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
UV_FILES = (Path.home() / ".config/uv/uv.toml", Path("/etc/uv/uv.toml"))


@contextmanager
def secrets() -> Iterator[list[str]]:
    """Yield the arguments that mount pip's and uv's settings and the certificates into a build."""
    with TemporaryDirectory() as folder:
        settings = pip_settings()
        pip, uv = Path(folder) / "pip", Path(folder) / "uv"
        pip.touch(mode=0o600)
        uv.touch(mode=0o600)
        pip.write_text("\n".join(["[global]", *(f"{k} = {v}" for k, v in settings.items())]) + "\n")
        uv.write_text(uv_settings(settings))
        given = {"pip": pip, "uv": uv, "certificates": CERTIFICATES}
        yield [f"--secret=id={name},src={path}" for name, path in given.items() if path.exists()]


def pip_settings() -> dict[str, str]:
    """Return pip's settings of the package index, from its files and variables."""
    listed = subprocess.run(
        [os.environ.get("UV_PYTHON") or sys.executable, "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    found: dict[str, str] = {}
    for line in listed.splitlines():  # pip lists variables last, because they win
        name, _, value = line.partition("=")
        scope, _, option = name.partition(".")
        if scope in ("global", "install", ":env:"):
            found[option.lstrip(".")] = value[1:-1]
    wanted = ("index-url", "extra-index-url", "trusted-host")
    return {option: found[option] for option in wanted if option in found}


def uv_settings(pip: Mapping[str, str], environ: Mapping[str, str] = os.environ) -> str:
    """Return uv's settings: its own file, or else the same index as pip's."""
    for path in UV_FILES:
        if path.exists():
            return path.read_text()
    index = environ.get("UV_DEFAULT_INDEX") or environ.get("UV_INDEX_URL") or pip.get("index-url")
    lines = ["native-tls = true"]
    if index:
        lines.append(f"index-url = {json.dumps(index)}")
    if extra := pip.get("extra-index-url"):
        lines.append(f"extra-index-url = {json.dumps(extra.split())}")
    return "\n".join(lines) + "\n"
