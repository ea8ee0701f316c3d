"""A V2 server of another project: the KServe SDK, behind one port for HTTP and gRPC.

Run with ``python v2_server.py PORT FEEDBACK_FILE HTTP_PORT GRPC_PORT``. The score is the flow
divided by 100, by version 7. The first labels are refused with 503.
"""

import asyncio
import sys
import uuid
from pathlib import Path

import fastapi
import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.model_server import app

PORT, FEEDBACK = int(sys.argv[1]), Path(sys.argv[2])
HTTP_PORT, GRPC_PORT = int(sys.argv[3]), int(sys.argv[4])
posts = 0


class Flow(Model):
    def __init__(self) -> None:
        super().__init__("pump-failure")
        self.ready = True

    async def predict(self, payload: InferRequest, headers=None, response_headers=None):  # noqa: ARG002
        columns = {i.name: i.as_numpy() for i in payload.inputs}
        score = columns["flow"].reshape(-1) / 100
        outputs = []
        for name, kind, values in (
            ("failure_probability", "FP64", score),
            ("failure", "INT64", (score >= 0.5).astype(np.int64)),
            ("risk_level", "BYTES", np.array([b"HIGH" if s >= 0.5 else b"LOW" for s in score])),
        ):
            output = InferOutput(name, [len(score)], kind)
            output.set_data_from_numpy(values.astype(object) if kind == "BYTES" else values)
            outputs.append(output)
        parameters = {"version": "7", "prediction_id": f"{uuid.uuid4().hex}-7-1-{'0' * 32}"}
        return InferResponse(
            payload.id or parameters["prediction_id"], self.name, outputs, parameters=parameters
        )


@app.post("/v2/models/pump-failure/feedback")
async def feedback(request: fastapi.Request) -> fastapi.Response:
    global posts  # noqa: PLW0603
    posts += 1
    if posts == 1:
        return fastapi.Response(status_code=503)
    if request.headers.get("authorization") != "Bearer secret":
        return fastapi.Response(status_code=401)
    body = await request.body()
    with FEEDBACK.open("ab") as file:  # noqa: ASYNC230 - a test's few bytes
        file.write(body + b"\n")
    return fastapi.Response(status_code=202)


async def one_port() -> None:
    """Forward connections by their first bytes: HTTP/2 is gRPC here."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(65536)
        port = GRPC_PORT if first.startswith(b"PRI") else HTTP_PORT
        inner, outer = await asyncio.open_connection("127.0.0.1", port)
        outer.write(first)
        await asyncio.gather(pipe(reader, outer), pipe(inner, writer), return_exceptions=True)

    async def pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        finally:
            sink.close()

    async with await asyncio.start_server(accept, "127.0.0.1", PORT) as server:
        await server.serve_forever()


if __name__ == "__main__":
    import threading

    threading.Thread(target=lambda: asyncio.run(one_port()), daemon=True).start()
    ModelServer(http_port=HTTP_PORT, grpc_port=GRPC_PORT).start([Flow()])
