"""Libraries of training send no telemetry."""

import subprocess
import sys
from pathlib import Path


def test_onnx_runtime_keeps_no_identifier_of_the_machine(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "import watchkeeper.training.onnx_form"]
    subprocess.run(words, env={"HOME": str(tmp_path)}, check=True, timeout=60)
    assert not list(tmp_path.rglob("*"))
