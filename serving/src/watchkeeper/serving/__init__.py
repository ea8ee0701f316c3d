"""The serving runtime: MLServer hosts the process, the request path is Watchkeeper's own.

Read a request in this order: ``http`` or ``grpc``, ``dataplane``, ``contract``,
``micro_batching``, ``version``, ``engine``, ``recorder``, ``spool``.
"""

import os

# ONNX Runtime reads this when it is first imported. Its telemetry sends data to Microsoft and
# writes an identifier of the machine into the home folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
