"""The make targets of the tests install database servers only where tests need them."""

import os
import subprocess
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
INSTALLER: Final = ROOT / "tests/support/install-databases"
PLUGIN: Final = '"databases"'  # in the conftest.py of a project

# Bash reads this before the script. No server is found, and sudo runs nothing: it logs its
# arguments, and fails for `apt-get install`.
FAKES: Final = """
compgen() { return 1; }
command() {
    case "$2" in postgres|mariadbd|mariadb-install-db) return 1;; esac
    builtin command "$@"
}
apt-get() { return 1; }
id() { echo 1000; }
sudo() {
    echo "$@" >>"$TMPDIR/sudo"
    case "$*" in
        *"apt-get install"*) echo "unmet dependencies"; return 100;;
        *" tee "*) cat >/dev/null;; # or the writer of the pipe may get a SIGPIPE
    esac
}
"""


def run_installer(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the installer on a machine where the packages cannot be installed."""
    fakes = folder / "fakes"
    fakes.write_text(FAKES)
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(folder), "BASH_ENV": str(fakes)}
    return subprocess.run(
        ["bash", INSTALLER],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_failed_installation_is_a_message_and_no_error(tmp_path: Path) -> None:
    done = run_installer(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "unmet dependencies" in done.stderr
    assert "PostgreSQL or MariaDB is missing, and the installation failed" in done.stderr
    assert "rm -f /usr/sbin/policy-rc.d" in (tmp_path / "sudo").read_text(), "it is removed again"


def test_a_failed_installation_is_an_error_if_servers_are_required(tmp_path: Path) -> None:
    done = run_installer(tmp_path, WATCHKEEPER_TEST_DATABASES="required")
    assert done.returncode == 1, done.stderr
    assert "unmet dependencies" in done.stderr
    assert "PostgreSQL or MariaDB is missing, and the installation failed" in done.stderr


def projects() -> dict[str, Path]:
    """Return the folders of all projects with tests, but those of models/, by name."""
    found = [*ROOT.glob("*/pyproject.toml"), *ROOT.glob("dev/*/pyproject.toml")]
    return {path.parent.name: path.parent for path in found if (path.parent / "tests").is_dir()}


@pytest.mark.parametrize("project", sorted(projects()))
def test_only_projects_that_start_servers_install_them(project: str) -> None:
    conftest = projects()[project] / "tests/conftest.py"
    uses_servers = conftest.is_file() and PLUGIN in conftest.read_text()
    assert installs_databases(f"test-{project}") == uses_servers


def test_the_check_before_a_review_installs_no_servers() -> None:
    assert not installs_databases("check")


def installs_databases(target: str) -> bool:
    """Return True if a make target runs the installer."""
    done = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return str(INSTALLER.relative_to(ROOT)) in done.stdout.splitlines()
