"""Whether the gateway lets us in, asked once before thousands of requests are turned away."""

import httpx

from watchkeeper.demo.clients import Target
from watchkeeper.demo.system import Endpoints, UnavailableError

TIMEOUT = 10.0


async def check(endpoints: Endpoints, model: str, key: str) -> None:
    """Ask for a model's metadata with the key, if there is one.

    A gateway that does not answer now is none of our business: what fails later is counted.

    Raises:
        UnavailableError: the key is missing or wrong.
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
        what = "does not know the API key that was given" if key else "asks for an API key"
        raise UnavailableError(
            f"{model}: the gateway at {target.address} {what} ({answer.status_code}): set "
            "WATCHKEEPER_API_KEY, or WATCHKEEPER_API_KEY_FILE to a file with it"
        )
