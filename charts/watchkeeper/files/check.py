"""Check of `helm test`: the version in production answers its own example through the gateway.

It is asked over HTTP and gRPC. A gateway that authenticates its clients must refuse this check,
which has no credential of a client. Then the servers are asked past the gateway, with its token.
"""

import http.client
import json
import math
import ssl
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import grpc
from mlserver.grpc import converters
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from mlserver.types import InferenceRequest, InferenceResponse

from watchkeeper.core.names import model_uri, serving_name
from watchkeeper.core.version import read_example, read_manifest
from watchkeeper.registry import Registry

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN = Path("/run/secrets/gateway/credential")
AUTHORITY = Path("/run/authorities/servers.crt")  # of the servers, if they have certificates
# The ports of the Services of a version.
HTTP_PORT, GRPC_PORT = (8443, 9443) if AUTHORITY.exists() else (80, 9000)
# A gateway needs some seconds for a new route, and a canary answers a part of the requests.
RETRY_SECONDS = 60.0
CALL_SECONDS = 30.0
SYNTHETIC = {"x-watchkeeper-synthetic": "true"}  # nobody may learn from these requests


class _NoAnswerError(Exception):
    """A request is not answered. The message says what came instead."""


class _NoCredentialError(_NoAnswerError):
    """The request is refused because it has no credential."""


class _Peer:
    """Where requests are sent.

    ``host`` is the host name in the requests, by which a gateway selects the model, and that of the
    certificate. Without an ``authority`` the certificate is not checked.
    """

    def __init__(self, address, port, host=None, *, tls=False, authority=None):
        self.address, self.port, self.host = address, port, host or address
        self.tls, self.authority = tls, authority

    def __str__(self):
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.port}"


def _check(model, gateway, *, authenticated, servers):
    version = Registry().aliases(model).get("production")
    if version is None:
        sys.exit(f"{model}: no version is in production yet; wait for the first training run")
    folder = Path(tempfile.mkdtemp()) / model
    fetch = [sys.executable, "-m", "watchkeeper.serving.initialize", model_uri(model, version)]
    subprocess.run([*fetch, folder], check=True)
    example, signature = read_example(folder), read_manifest(folder).signature
    inputs = [
        {
            "name": column.name,
            "datatype": column.wire,
            "shape": [len(example.inputs[column.name])],
            "data": example.inputs[column.name],
        }
        for column in signature.inputs
    ]
    for protocol, infer, port in (
        ("HTTP", _infer_http, HTTP_PORT),
        ("gRPC", _infer_grpc, GRPC_PORT),
    ):
        ask = partial(infer, model=model, body={"inputs": inputs})
        what = f"{model} version {version}, {protocol}"
        # Python's gRPC always checks certificates, and this check does not know who has issued that
        # of the gateway.
        reachable = protocol == "HTTP" or not gateway.tls
        if reachable and authenticated:
            _retry(what, partial(_be_refused, ask, gateway))
            print(f"{model}: the gateway refuses {protocol} without a credential")
        if reachable and not authenticated:
            outputs = _retry(what, partial(_be_answered, ask, gateway, version))
            way = f"through the gateway, {gateway}"
        else:
            address = f"{serving_name(model, version)}-predictor"
            server = _Peer(address, port)
            if AUTHORITY.exists():
                server = _Peer(address, port, servers, tls=True, authority=AUTHORITY)
            token = {"x-watchkeeper-gateway": TOKEN.read_text()} if TOKEN.exists() else {}
            outputs = _retry(what, partial(_be_answered, ask, server, version, token))
            way = f"past the gateway, {server}"
        for output in outputs:
            expected = example.outputs[output["name"]]
            if not _same_values(output["data"], expected):
                sys.exit(f"{what}: {output} differs from the example's output {expected}")
        first = outputs[0]["data"][:3]
        print(f"{model} version {version} answers over {protocol} {way}: {first} ...")


def _retry(what, attempt):
    """Return the result of the first attempt that does not fail."""
    deadline = time.monotonic() + RETRY_SECONDS
    while True:
        try:
            return attempt()
        except _NoAnswerError as error:
            if time.monotonic() > deadline:
                sys.exit(f"{what}: tried for {RETRY_SECONDS:.0f} s; at last: {error}")
        time.sleep(1)


def _be_answered(ask, peer, version, headers=None):
    """Return the outputs that a version answers with."""
    answered, outputs = ask(peer, headers=headers or {})
    if answered != str(version):
        raise _NoAnswerError(f"{peer}: version {answered} has answered")
    return outputs


def _be_refused(ask, gateway):
    """Send a request that the gateway must refuse."""
    try:
        ask(gateway, headers={})
    except _NoCredentialError:
        return
    raise _NoAnswerError(f"{gateway}: a request without a credential was answered")


def _infer_http(peer, *, model, body, headers):
    given = {"Host": peer.host, "Content-Type": "application/json", **SYNTHETIC, **headers}
    context = ssl.create_default_context(cafile=peer.authority)
    if peer.authority is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    status, text = _http(
        peer,
        f"/v2/models/{model}/infer",
        given,
        body=json.dumps(body),
        context=context if peer.tls else None,
    )
    if status != http.client.OK:
        kind = _NoCredentialError if status == http.client.UNAUTHORIZED else _NoAnswerError
        raise kind(f"{peer}, host {peer.host}: status {status}: {text[:300]}")
    answer = json.loads(text)
    return answer["model_version"], answer["outputs"]


def _http(peer, path, headers, *, body=None, context=None):
    """Send a request, without the proxies of the environment; return status and text."""
    connection = http.client.HTTPConnection(peer.address, peer.port, timeout=CALL_SECONDS)
    try:
        connection.connect()
        if context:
            connection.sock = context.wrap_socket(connection.sock, server_hostname=peer.host)
        connection.request("POST" if body else "GET", path, body, headers)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise _NoAnswerError(f"{peer}: {error or type(error).__name__}") from error
    finally:
        connection.close()


def _infer_grpc(peer, *, model, body, headers):
    typed = InferenceRequest.model_validate(body)
    for column in typed.inputs:
        # gRPC has no null: a missing number is NaN, a missing text the empty one.
        missing = "" if column.datatype == "BYTES" else float("nan")
        column.data.root = [missing if value is None else value for value in column.data.root]
        if column.datatype == "BYTES":
            column.data.root = [value.encode() for value in column.data.root]
    request = converters.ModelInferRequestConverter.from_types(
        typed, model_name=model, model_version=None
    )
    options = [("grpc.default_authority", peer.host), ("grpc.enable_http_proxy", 0)]
    metadata = tuple({**SYNTHETIC, **headers}.items())
    if peer.tls:
        options.append(("grpc.ssl_target_name_override", peer.host))
        credentials = grpc.ssl_channel_credentials(peer.authority.read_bytes())
        opened = grpc.secure_channel(str(peer), credentials, options)
    else:
        opened = grpc.insecure_channel(str(peer), options)
    with opened as channel:
        infer = GRPCInferenceServiceStub(channel).ModelInfer
        try:
            answer = infer(request, timeout=CALL_SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            refused = error.code() == grpc.StatusCode.UNAUTHENTICATED
            kind = _NoCredentialError if refused else _NoAnswerError
            reason = f"{error.code().name}: {error.details()}"
            raise kind(f"{peer}, host {peer.host}: {reason}") from error
    response: InferenceResponse = converters.ModelInferResponseConverter.to_types(answer)
    outputs = [{"name": output.name, "data": list(output.data)} for output in response.outputs]
    return response.model_version, outputs


def _same_values(actual, expected):
    def same(one, other):
        if isinstance(other, float):
            return math.isclose(one, other, abs_tol=1e-5)
        return (one.decode() if isinstance(one, bytes) else one) == other

    return len(actual) == len(expected) and all(map(same, actual, expected))


def _find_gateway(namespace, name, listener):
    """Return address, port and TLS of a Gateway's listener, as its status and spec say."""
    what = f"Gateway {namespace}/{name}"
    api = _Peer("kubernetes.default.svc", 443)
    path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}/gateways/{name}"
    authorization = {"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}"}
    try:
        context = ssl.create_default_context(cafile=ACCOUNT / "ca.crt")
        status, text = _http(api, path, authorization, context=context)
    except _NoAnswerError as error:
        sys.exit(f"{what}: cannot be read from the API server: {error}")
    if status != http.client.OK:
        sys.exit(f"{what}: cannot be read from the API server: status {status}: {text[:300]}")
    gateway = json.loads(text)
    addresses = gateway.get("status", {}).get("addresses")
    if not addresses:
        sys.exit(f"{what} has no address: `kubectl describe` it, and the controller of its class")
    # Without a name, any listener has the routes; the one without TLS can be asked over gRPC, too.
    listeners = sorted(
        (each for each in gateway["spec"]["listeners"] if listener in ("", each["name"])),
        key=lambda each: each["protocol"] != "HTTP",
    )
    if not listeners:
        sys.exit(f"{what} has no listener {listener}: correct gateway.existing.sectionName")
    chosen = listeners[0]
    return addresses[0]["value"], chosen["port"], chosen["protocol"] != "HTTP"


given = json.loads(sys.argv[1])
address, port, tls = _find_gateway(**given["gateway"])
for name, host in given["hosts"].items():
    gateway = _Peer(address, port, host, tls=tls)
    _check(name, gateway, authenticated=given["authenticated"], servers=given["servers"])
