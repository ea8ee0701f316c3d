"""``watchkeeper sample``: a request that works, for a shell or for Python.

The row is one of the example that every version contains, so it needs no data and no declaration.
"""

import json
import tempfile
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from watchkeeper.cli.commands import CommandError
from watchkeeper.cli.system import System
from watchkeeper.core.names import PRODUCTION, model_uri
from watchkeeper.core.signature import MISSING_TEXT, Column
from watchkeeper.core.version import Example, read_example, read_manifest

Form = Literal["curl", "python", "grpc"]
KEY: Final = "WATCHKEEPER_API_KEY"
KEY_HINT: Final = f"# Every request needs a key of a client: export {KEY}=..."


_NUMPY: Final = {
    "FP64": "np.float64",
    "FP32": "np.float32",
    "INT64": "np.int64",
    "INT32": "np.int32",
    "BOOL": "np.bool_",
    "BYTES": "np.object_",
}


class Sample(msgspec.Struct, frozen=True):
    """One row for a version, its answer, and where requests go.

    ``needs_key`` says that the gateway asks every client for a key.
    """

    model: str
    version: int
    url: str
    host: str
    columns: tuple[Column, ...]
    row: dict[str, Any]
    answer: dict[str, Any]
    needs_key: bool

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """The inputs of a V2 request."""
        return [
            {
                "name": column.name,
                "shape": [1],
                "datatype": column.wire,
                "data": [self.row[column.name]],
            }
            for column in self.columns
        ]


def read_sample(system: System, model: str, *, needs_key: bool) -> Sample:
    """Read the example of the version that serves.

    Raises:
        CommandError: no version serves, or the platform does not know its address.
        RegistryError, PlatformError: a part of the system does not answer.
    """
    version = system.registry.aliases(model).get(PRODUCTION)
    if version is None:
        raise CommandError(
            f"no version of {model} serves yet; 'watchkeeper status' shows its training runs"
        )
    if not system.endpoints.v2:
        raise CommandError("the platform does not know the address of the gateway")
    serving = system.platform.serving(model).get(version)
    with tempfile.TemporaryDirectory(prefix="watchkeeper-sample-") as workspace:
        folder = Path(workspace) / "version"
        uri = model_uri(model, version, serving.digest if serving else "")
        system.registry.download(uri, folder)
        manifest, example = read_manifest(folder), read_example(folder)
    place = _typical(example)
    return Sample(
        model=model,
        version=version,
        url=system.endpoints.v2,
        host=system.endpoints.hosts.get(model, model),
        columns=manifest.signature.inputs,
        row={name: values[place] for name, values in example.inputs.items()},
        answer={
            output.name: example.outputs[output.name][place]
            for output in manifest.signature.outputs
        },
        needs_key=needs_key,
    )


def _typical(example: Example) -> int:
    """Return the place of the first row without a missing value, or else of the second row.

    The very first row has the lowest score of all.
    """
    rows = len(next(iter(example.inputs.values())))
    places = [*range(1, rows), 0]
    whole = (at for at in places if all(x[at] is not None for x in example.inputs.values()))
    place: int = next(whole, places[0])
    return place


def render(sample: Sample, form: Form) -> str:
    """Return the text of the request."""
    return {"curl": _curl, "python": _python, "grpc": _grpc}[form](sample)


def _head(sample: Sample) -> list[str]:
    answer = ", ".join(f"{name} {_shown(value)}" for name, value in sample.answer.items())
    head = [f"# Version {sample.version} of {sample.model} answers: {answer}"]
    return [*head, KEY_HINT] if sample.needs_key else head


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _curl(sample: Sample) -> str:
    body = '{"inputs": [\n  ' + ",\n  ".join(map(json.dumps, sample.inputs)) + "]}"
    quoted = body.replace("'", "'\\''")
    key = f' -H "x-api-key: ${KEY}"' if sample.needs_key else ""
    url = f"{sample.url}/v2/models/{sample.model}/infer"
    return "\n".join([*_head(sample), f"curl -s {url} -H 'Host: {sample.host}'{key} -d '{quoted}'"])


def _python(sample: Sample) -> str:
    headers = f'"Host": "{sample.host}"'
    if sample.needs_key:
        headers += f', "x-api-key": os.environ["{KEY}"]'
    inputs = "".join(f"    {each!r},\n" for each in sample.inputs)
    return "\n".join(
        [
            *_head(sample),
            "import json",
            *(["import os"] if sample.needs_key else []),
            "import urllib.request",
            "",
            f"inputs = [\n{inputs}]",
            "request = urllib.request.Request(",
            f'    "{sample.url}/v2/models/{sample.model}/infer",',
            '    json.dumps({"inputs": inputs}).encode(),',
            f"    {{{headers}}},",
            ")",
            "with urllib.request.urlopen(request, timeout=10) as response:",
            '    for output in json.load(response)["outputs"]:',
            '        print(output["name"], output["data"][0])',
        ]
    )


def _value(column: Column, value: Any) -> str:
    """Return a value as a literal of Python; gRPC has no null."""
    if value is None:
        return json.dumps(MISSING_TEXT) if column.wire == "BYTES" else 'float("nan")'
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _grpc(sample: Sample) -> str:
    columns = "".join(
        f"    {json.dumps(column.name)}: ({json.dumps(column.wire)}, "
        f"{_value(column, sample.row[column.name])}),\n"
        for column in sample.columns
    )
    key = f', headers={{"x-api-key": os.environ["{KEY}"]}}' if sample.needs_key else ""
    address = sample.url.removeprefix("http://")
    used = dict.fromkeys(column.wire for column in sample.columns)
    return "\n".join(
        [
            '# It needs: pip install numpy "tritonclient[grpc]"',
            *_head(sample),
            *(["import os", ""] if sample.needs_key else []),
            "import numpy as np",
            "import tritonclient.grpc as triton",
            "",
            f"TYPES = {{{', '.join(f'{json.dumps(name)}: {_NUMPY[name]}' for name in used)}}}",
            f"row = {{\n{columns}}}",
            "inputs = []",
            "for name, (datatype, value) in row.items():",
            "    tensor = triton.InferInput(name, [1], datatype)",
            "    tensor.set_data_from_numpy(np.array([value], dtype=TYPES[datatype]))",
            "    inputs.append(tensor)",
            "client = triton.InferenceServerClient(",
            f'    "{address}",',
            f'    channel_args=[("grpc.default_authority", "{sample.host}")],',
            ")",
            f'answer = client.infer("{sample.model}", inputs{key})',
            "for output in answer.get_response().outputs:",
            "    print(output.name, answer.as_numpy(output.name)[0])",
        ]
    )
