"""Check that the gateway accepts the API key, before thousands of requests are refused."""

import httpx

from watchkeeper.demo.clients import Target
from watchkeeper.demo.system import Endpoints, SystemUnavailableError

TIMEOUT = 30.0


async def check_access(endpoints: Endpoints, model: str, key: str) -> None:
    """Request a model's metadata with the key, if there is one.

    A gateway that does not answer is no error here: the senders count failed requests.

    Raises:
        SystemUnavailableError: the key is missing or wrong.
    """
    target = Target(endpoints.address, endpoints.hosts.get(model, model), model, (), key)
    headers = {"Host": target.host, **target.headers("traffic")}
    url = f"http://{target.address}/v2/models/{model}"
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT) as http:
            answer = await http.get(url, headers=headers)
    except httpx.TransportError:
        return
    if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        what = "does not accept this API key" if key else "needs an API key"
        raise SystemUnavailableError(
            f"{model}: the gateway at {target.address} {what} ({answer.status_code}); set "
            "WATCHKEEPER_API_KEY to the key, or WATCHKEEPER_API_KEY_FILE to a file with it"
        )
