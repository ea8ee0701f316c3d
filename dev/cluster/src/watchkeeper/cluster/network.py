"""A veth pair between this machine and the cluster's network namespace.

This machine reaches the node's address only. It serves the API server, node ports and the external
address of gateways.
"""

import ipaddress
import json
import os
from pathlib import Path

from watchkeeper.cluster.commands import run
from watchkeeper.cluster.layout import ClusterError, Layout, write

SUBNETS = ipaddress.IPv4Network("10.213.0.0/16")  # each cluster uses four of these addresses
SUBNET_PREFIX = 30
INSIDE_INTERFACE = "eth0"


def choose_subnet(identity: str, taken: list[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """Return a free subnet for the cluster ``identity``; the same one each time if it is free.

    Raises:
        ClusterError: this machine has routes for all subnets.
    """
    subnets = list(SUBNETS.subnets(new_prefix=SUBNET_PREFIX))
    first = int(identity, 16) % len(subnets)
    for subnet in subnets[first:] + subnets[:first]:
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
    raise ClusterError(f"this machine has routes for all of {SUBNETS}, the addresses of clusters")


def routes(own_interface: str) -> list[ipaddress.IPv4Network]:
    """Return the destinations of this machine's routes, without the default and our own."""
    answer = json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"]))
    destinations = [
        route["dst"].removeprefix("local ")
        for route in answer
        if route["dst"] != "default" and route.get("dev") != own_interface
    ]
    return [ipaddress.IPv4Network(text, strict=False) for text in destinations]


def node_address(layout: Layout) -> str:
    """Return the node's address, which is chosen once for a state folder."""
    if layout.address_file.exists():
        return layout.address_file.read_text().strip()
    subnet = choose_subnet(layout.identity, routes(layout.interface))
    write(layout.address_file, f"{subnet[2]}\n")
    return str(subnet[2])


def host_address(node: str) -> str:
    """Return this machine's end of the veth pair."""
    return str(ipaddress.IPv4Address(node) - 1)


def attach(layout: Layout, node: str, init: int) -> None:
    """Create the veth pair into the namespace of process ``init`` if it is missing."""
    if not interface_exists(layout.interface):
        peer = ["peer", "name", INSIDE_INTERFACE, "netns", str(init)]
        run(["ip", "link", "add", "name", layout.interface, "type", "veth", *peer])
    own = f"{host_address(node)}/{SUBNET_PREFIX}"
    run(["ip", "address", "replace", own, "dev", layout.interface])
    run(["ip", "link", "set", layout.interface, "up"])
    inside = ["nsenter", "--target", str(init), "--net", "ip"]
    run([*inside, "address", "replace", f"{node}/{SUBNET_PREFIX}", "dev", INSIDE_INTERFACE])
    run([*inside, "link", "set", INSIDE_INTERFACE, "up"])
    run([*inside, "route", "replace", "default", "via", host_address(node)])


def detach(layout: Layout) -> None:
    """Remove the veth pair, unless the end of the namespace has removed it."""
    if interface_exists(layout.interface):
        try:
            run(["ip", "link", "delete", layout.interface])
        except ClusterError:
            if interface_exists(layout.interface):
                raise


def interface_exists(name: str) -> bool:
    """Return whether this machine has the network interface ``name``."""
    return os.path.lexists(Path("/sys/class/net") / name)
