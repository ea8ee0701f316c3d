"""The way in: a veth pair between this machine and the cluster's network namespace.

Inside, everything has an address of its own; this machine sees the node's alone. The API server,
node ports and the gateway's external address are all there.
"""

import ipaddress
import json
import os
from pathlib import Path

from watchkeeper.cluster.asking import ask
from watchkeeper.cluster.layout import ClusterError, Layout, write

WAYS_IN = ipaddress.IPv4Network("10.213.0.0/16")  # every cluster takes four addresses of it
SUBNET_PREFIX = 30
INSIDE_INTERFACE = "eth0"


def choose_subnet(identity: str, taken: list[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """Return a subnet for the cluster ``identity``, the same every time unless others have it.

    Raises:
        ClusterError: this machine has routes for all of them.
    """
    subnets = list(WAYS_IN.subnets(new_prefix=SUBNET_PREFIX))
    first = int(identity, 16) % len(subnets)
    for subnet in subnets[first:] + subnets[:first]:
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
    raise ClusterError(f"this machine has routes for all of {WAYS_IN}, where clusters are reached")


def routes(own_interface: str) -> list[ipaddress.IPv4Network]:
    """Return the destinations of this machine's routes, but for the default and our own."""
    answer = json.loads(ask(["ip", "-json", "-4", "route", "show", "table", "all"]))
    destinations = [
        route["dst"].removeprefix("local ")
        for route in answer
        if route["dst"] != "default" and route.get("dev") != own_interface
    ]
    return [ipaddress.IPv4Network(text, strict=False) for text in destinations]


def node_address(layout: Layout) -> str:
    """Return the node's address, chosen once for a state folder and then kept."""
    if layout.address_file.exists():
        return layout.address_file.read_text().strip()
    subnet = choose_subnet(layout.identity, routes(layout.interface))
    write(layout.address_file, f"{subnet[2]}\n")
    return str(subnet[2])


def host_address(node: str) -> str:
    """Return this machine's end of the veth pair."""
    return str(ipaddress.IPv4Address(node) - 1)


def attach(layout: Layout, node: str, init: int) -> None:
    """Make the veth pair into the namespace of process ``init``, if it is not there yet."""
    if not interface_exists(layout.interface):
        peer = ["peer", "name", INSIDE_INTERFACE, "netns", str(init)]
        ask(["ip", "link", "add", "name", layout.interface, "type", "veth", *peer])
    own = f"{host_address(node)}/{SUBNET_PREFIX}"
    ask(["ip", "address", "replace", own, "dev", layout.interface])
    ask(["ip", "link", "set", layout.interface, "up"])
    inside = ["nsenter", "--target", str(init), "--net", "ip"]
    ask([*inside, "address", "replace", f"{node}/{SUBNET_PREFIX}", "dev", INSIDE_INTERFACE])
    ask([*inside, "link", "set", INSIDE_INTERFACE, "up"])
    ask([*inside, "route", "replace", "default", "via", host_address(node)])


def detach(layout: Layout) -> None:
    """Remove the veth pair, if the end of the namespace has not done so already."""
    if interface_exists(layout.interface):
        try:
            ask(["ip", "link", "delete", layout.interface])
        except ClusterError:
            if interface_exists(layout.interface):
                raise


def interface_exists(name: str) -> bool:
    """Tell whether this machine has the network interface ``name``."""
    return os.path.lexists(Path("/sys/class/net") / name)
