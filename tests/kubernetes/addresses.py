"""Addresses of pods and Services: 10.a.b.c in the API is 127.a.b.c on this machine.

The API refuses loopback addresses in EndpointSlices, and all of 127.0.0.0/8 may be listened on without being set up. So
each pod has an address of its own, and two replicas listen on one port.
"""

from __future__ import annotations

from ipaddress import IPv4Network

NETWORKS = 1 << 15
FAKE_PODS = "192.168.0.0/16"
"""Of pods in which nothing runs."""


def here(address: str) -> str:
    """Where what the API shows as `address` is reached."""
    first, rest = address.split(".", 1)
    if first != "10":
        raise ValueError(f"{address} is no address of a process")
    return f"127.{rest}"


def network(port: int) -> IPv4Network:
    """512 addresses that no other control plane of this machine has, since it does not have the port either."""
    return IPv4Network(((10 << 24) + (port % NETWORKS << 9), 23))
