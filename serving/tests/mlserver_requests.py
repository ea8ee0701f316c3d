"""Prints requests that MLServer's codecs create.

This runs in a process of its own, because MLServer and tritonclient register the same names of
messages. The argument contains columns in JSON. The output contains, for each codec, the JSON body
and the message in hexadecimal.
"""

import json
import sys
from typing import Any

import numpy as np
import pandas as pd
from mlserver.codecs import NumpyCodec, PandasCodec, StringCodec
from mlserver.grpc.converters import ModelInferRequestConverter
from mlserver.types import InferenceRequest, Parameters

Columns = dict[str, list[Any]]


def by_pandas(columns: Columns, use_bytes: bool) -> InferenceRequest:
    """A table, with the content type "pd"."""
    table = pd.DataFrame(columns)
    texts = {name: object for name in table if isinstance(columns[name][0], str)}
    return PandasCodec.encode_request(table.astype(texts), use_bytes=use_bytes)


def by_column(columns: Columns, use_bytes: bool) -> InferenceRequest:
    """Columns, with the content types "np" and "str"."""
    inputs = []
    for name, values in columns.items():
        text = isinstance(values[0], str)
        tensor = (
            StringCodec.encode_input(name, values, use_bytes=use_bytes)
            if text
            else NumpyCodec.encode_input(name, np.array(values))
        )
        tensor.parameters = Parameters(content_type="str" if text else "np")
        inputs.append(tensor)
    return InferenceRequest(inputs=inputs)


if __name__ == "__main__":
    model, given = sys.argv[1], json.loads(sys.argv[2])
    made = {}
    for make in (by_pandas, by_column):
        message = ModelInferRequestConverter.from_types(make(given, True), model_name=model)
        made[make.__name__] = {
            "http": make(given, False).model_dump_json(),
            "grpc": message.SerializeToString().hex(),
        }
    print(json.dumps(made))
