"""Requests that reach a server past the gateway."""

import json

from declared_models import FIRST
from installation import Installation
from kube import Json
from sample_requests import sample_request

# A program for the pod of the command line: sends a request, prints status and body.
SEND = """
import json, sys, urllib.error, urllib.request
given = json.load(sys.stdin)
data, headers = json.dumps(given["body"]).encode(), given["headers"]
try:
    answer = urllib.request.urlopen(urllib.request.Request(given["url"], data, headers), timeout=10)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status, answer.read().decode())
"""


def past_the_gateway(
    installation: Installation, pod: Json, headers: dict[str, str]
) -> tuple[int, str]:
    """Send a request from the pod of the command line to a server; return status and body."""
    url = f"http://{pod['status']['podIP']}:8080/v2/models/{FIRST}/infer"
    given = json.dumps({"url": url, "headers": headers, "body": sample_request(FIRST)})
    status, _, text = installation.in_cli("python", "-c", SEND, given=given).partition(" ")
    return int(status), text
