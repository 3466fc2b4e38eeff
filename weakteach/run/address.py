"""Tells which Ray cluster is meant, and whether it answers. It does not import Ray, which takes
seconds, so that a user is told at once.
"""

import os
import socket

from weakteach.artifacts.errors import UserError

# How long the port of a cluster may take to answer; Ray itself tries for minutes.
SECONDS_TO_ANSWER = 2.0
# The address of a cluster that Ray finds in ways of its own.
AUTO = "auto"


class ClusterError(UserError):
    """The cluster cannot be reached or is too small."""


def is_here(option: str | None) -> bool:
    """Whether Ray is to start on this machine, by the option or else the environment."""
    return (option or os.environ.get("RAY_ADDRESS", "")) in ("", "local")


def ray_address(option: str | None) -> tuple[str, str]:
    """The address of the cluster to run on, from the option or else from the environment, and
    which of the two it is from. The address is empty if Ray is to start on this machine.

    Raises ClusterError if nothing listens there.
    """
    given = "--address" if option else "the environment variable RAY_ADDRESS"
    address = option or os.environ.get("RAY_ADDRESS", "")
    if is_here(option):
        return "", given
    if address == AUTO or "://" in address:  # :// is in addresses for Ray's client
        return address, given
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdigit()):
        raise ClusterError(f"{address} ({given}) is no address of a Ray cluster, such as host:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"No Ray cluster answers at {address} ({given}): start it, correct the address, or "
            "leave it out to run on this machine"
        ) from error
    return address, given
