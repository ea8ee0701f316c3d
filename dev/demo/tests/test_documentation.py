"""The Python sample of the documentation runs in the interpreter that it names."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "how-to" / "call-a-model.md"


def test_imports_of_the_sample_work() -> None:
    text = PAGE.read_text()
    (interpreter,) = re.findall(r"^(\S+/python) ask\.py$", text, re.MULTILINE)
    (sample,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert text.index(interpreter) < text.index(sample), (
        "the interpreter is named before the sample"
    )
    imports = re.findall(r"^import .*", sample, re.MULTILINE)
    assert len(imports) == 2
    imports.append(imports[1].replace("tritonclient.grpc", "tritonclient.http"))
    subprocess.run([ROOT / interpreter, "-c", "\n".join(imports)], check=True, timeout=120)
