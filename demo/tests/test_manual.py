"""What the manual tells strangers to run is there."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
MANUAL = ROOT / "docs" / "requests.md"


def test_the_interpreter_that_the_manual_names_has_what_its_python_sample_needs() -> None:
    text = MANUAL.read_text()
    (interpreter,) = re.findall(r"^(\S+/python) ask\.py$", text, re.MULTILINE)
    (sample,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert text.index(interpreter) < text.index(sample), "said before it is needed"
    imports = re.findall(r"^import .*", sample, re.MULTILINE)
    assert len(imports) == 2
    imports.append(imports[1].replace("tritonclient.grpc", "tritonclient.http"))
    subprocess.run([ROOT / interpreter, "-c", "\n".join(imports)], check=True, timeout=120)
