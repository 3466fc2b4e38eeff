"""What device-hours cost: a table of node types that the user may edit."""

import math
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rich.table import Table

from weakteach.artifacts.errors import UserError
from weakteach.run.plan import Plan, hours_text

SHIPPED = Path(__file__).with_name("prices.toml")
WORKERS = ("spot", "on_demand")


class PriceError(UserError):
    """A price table that cannot be read, or a node type that it does not hold."""


class CostError(UserError):
    """The study would cost more than the user allows."""


@dataclass(frozen=True)
class NodeType:
    """A machine of a cloud: its device, how many it has, and the price of the node in an hour."""

    name: str
    cloud: str
    device: str
    devices: int
    on_demand: float
    spot: float | None = None

    def paid(self, workers: str) -> float:
        """Of the node, in an hour; ``workers`` as in a price table."""
        return self.on_demand if workers == "on_demand" or self.spot is None else self.spot


@dataclass(frozen=True)
class Rate:
    """What an hour of one device costs on nodes of one type."""

    node_type: str
    currency: str
    device_hour: float


@dataclass(frozen=True)
class Prices:
    """``speed[reference][device]``: how fast a device is, as a multiple of the one that a plan
    counts its hours in. ``workers`` says which price is paid: spot or on_demand."""

    file: str
    currency: str
    workers: str
    speed: dict[str, dict[str, float]]
    nodes: tuple[NodeType, ...]


@dataclass(frozen=True)
class Cost:
    """What the missing steps of a plan take on nodes of one type, all devices of them at work."""

    node: NodeType
    device_hours: float
    on_demand: float
    spot: float | None

    def paid(self, workers: str) -> float:
        return self.on_demand if workers == "on_demand" or self.spot is None else self.spot


def read_prices(file: Path | None = None) -> Prices:
    """The price table of a TOML file, or the one shipped. Raises PriceError."""
    file = file or SHIPPED
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise PriceError(f"The price table {file} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PriceError(f"The price table {file} is no TOML: {error}") from error
    _check_keys(file, "the table", table, {"currency", "workers", "speed", "nodes"}, set())
    if not isinstance(table["currency"], str):
        raise PriceError(f"{file}: currency must be a text, such as USD")
    if table["workers"] not in WORKERS:
        raise PriceError(f"{file}: workers must be one of {', '.join(WORKERS)}")
    for name in ("speed", "nodes"):
        if not isinstance(table[name], dict):
            raise PriceError(f"{file}: {name} must be a table")
    return Prices(
        file=file.name,
        currency=table["currency"],
        workers=table["workers"],
        speed={name: _speeds(file, name, row) for name, row in table["speed"].items()},
        nodes=tuple(_node(file, name, row) for name, row in table["nodes"].items()),
    )


def costs(
    plan: Plan, prices: Prices, gpu_type: str = "", node_types: Iterable[str] = ()
) -> tuple[Cost, ...]:
    """The cost of a plan on each node type that could run it: all with a device whose speed is
    known, but for those without the GPU asked for or not among ``node_types``.

    Raises PriceError for a node type that is unknown or cannot run the plan.
    """
    speeds = prices.speed.get(plan.device, {})
    fitting = [n for n in prices.nodes if n.device in speeds and gpu_type in ("", n.device)]
    wanted = tuple(node_types)
    for name in wanted:
        if name not in {node.name for node in fitting}:
            names = ", ".join(node.name for node in fitting) or "none"
            raise PriceError(
                f"--node-types: {name} is not among the node types of {prices.file} that could "
                f"run this study: {names}"
            )
    return tuple(
        _cost(node, plan.device_hours / speeds[node.device])
        for node in fitting
        if not wanted or node.name in wanted
    )


def rates(found: Iterable[Cost], prices: Prices) -> tuple[Rate, ...]:
    """Of the node types of a plan's costs."""
    return tuple(
        Rate(cost.node.name, prices.currency, cost.node.paid(prices.workers) / cost.node.devices)
        for cost in found
    )


def check_cost(plan: Plan, found: tuple[Cost, ...], prices: Prices, most: float) -> None:
    """Raise CostError if the study could cost more than ``most``: on the dearest of the node types,
    or if its cost cannot be told."""
    if plan.unsized:
        raise CostError(
            f"--max-cost cannot be checked: the size of {', '.join(plan.unsized)} cannot be told "
            "from its name or files, so its steps have no estimate"
        )
    if not found:
        raise CostError(
            f"--max-cost cannot be checked: {prices.file} has no node type for this study; give "
            "a table that has one with --prices FILE"
        )
    dearest = max(found, key=lambda cost: cost.paid(prices.workers))
    if (amount := dearest.paid(prices.workers)) > most:
        raise CostError(
            f"The study would cost about {amount:,.2f} {prices.currency} on {dearest.node.name}, "
            f"more than --max-cost {most:,.2f}: allow more, make the grid smaller, or say with "
            "--node-types on which nodes it runs"
        )


def cost_table(found: tuple[Cost, ...], prices: Prices) -> Table:
    table = Table(title=f"Cost in {prices.currency}, by {prices.file}", title_justify="left")
    for heading in ("node type", "cloud", "devices", "device-hours", "on demand", "spot"):
        table.add_column(heading, justify="left" if heading in ("node type", "cloud") else "right")
    for cost in found:
        node = cost.node
        table.add_row(
            node.name,
            node.cloud,
            f"{node.devices} {node.device}",
            hours_text(cost.device_hours),
            f"{cost.on_demand:,.2f}",
            "" if cost.spot is None else f"{cost.spot:,.2f}",
        )
    return table


def cost_sentence(found: tuple[Cost, ...], prices: Prices) -> str:
    paid = sorted(cost.paid(prices.workers) for cost in found)
    if not paid:
        return f"{prices.file} has no node type for this study, so its cost cannot be told."
    between = f"{paid[0]:,.2f}" + ("" if len(paid) == 1 else f" to {paid[-1]:,.2f}")
    kind = prices.workers.replace("_", " ")
    return (
        f"All steps on nodes of one type: {between} {prices.currency} ({kind}). The head node, "
        "storage, booting and idle devices come on top."
    )


def _cost(node: NodeType, device_hours: float) -> Cost:
    node_hours = device_hours / node.devices
    spot = None if node.spot is None else node.spot * node_hours
    return Cost(node, device_hours, node.on_demand * node_hours, spot)


def _node(file: Path, name: str, row: Any) -> NodeType:
    place = f"node type {name}"
    known = {field.name for field in fields(NodeType)} - {"name"}
    _check_keys(file, place, row, known - {"spot"}, {"spot"})
    for key in ("cloud", "device"):
        if not isinstance(row[key], str):
            raise PriceError(f"{file}: {key} of {place} must be a text")
    if type(row["devices"]) is not int or row["devices"] < 1:
        raise PriceError(f"{file}: devices of {place} must be a whole number from 1 on")
    for key in row.keys() & {"on_demand", "spot"}:
        _number(file, f"{key} of {place}", row[key], 0.0)
    return NodeType(name, **row)


def _speeds(file: Path, reference: str, row: Any) -> dict[str, float]:
    if not isinstance(row, dict):
        raise PriceError(f"{file}: speed.{reference} must be a table")
    for device, speed in row.items():
        _number(file, f"speed of {device} against {reference}", speed, 1e-9)
    return dict(row)


def _number(file: Path, what: str, value: Any, least: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PriceError(f"{file}: {what} must be a number")
    if not (math.isfinite(value) and value >= least):
        raise PriceError(f"{file}: {what} must be {'positive' if least else 'at least 0'}")


def _check_keys(file: Path, place: str, row: Any, needed: set[str], optional: set[str]) -> None:
    if not isinstance(row, dict):
        raise PriceError(f"{file}: {place} must be a table")
    if missing := needed - row.keys():
        raise PriceError(f"{file}: {place} lacks {', '.join(sorted(missing))}")
    if unknown := row.keys() - needed - optional:
        raise PriceError(f"{file}: {place} has unknown keys: {', '.join(sorted(unknown))}")
