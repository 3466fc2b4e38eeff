"""What device-hours cost: a table of node types that the user may edit."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError
from rich.table import Table

from weakteach.artifacts.errors import UserError
from weakteach.run.plan import Plan, hours_text
from weakteach.study.presets import Scale

SHIPPED = Path(__file__).with_name("prices.toml")
Workers = Literal["spot", "on_demand"]
Price = Annotated[float, Field(ge=0)]
Speed = Annotated[float, Field(gt=0)]


class PriceError(UserError):
    """A price table that cannot be read, or a node type that it does not hold."""


class CostError(UserError):
    """The study would cost more than the user allows."""


class Checked(BaseModel):
    """A table of the TOML file: nothing unknown in it, no text for a number, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class NodeType(Checked):
    """A machine of a cloud: its kind of device, how many of these it has, and what the whole node
    costs in an hour."""

    cloud: str
    device: str
    devices: Annotated[int, Field(ge=1)]
    on_demand: Price
    spot: Price | None = None

    def paid(self, workers: Workers) -> float:
        """The price of the node in an hour; a node without a spot price is paid on demand."""
        return self.on_demand if workers == "on_demand" or self.spot is None else self.spot


class Prices(Checked):
    """A price table. ``speed[reference][device]`` is how fast a device is, as a multiple of the
    reference, in whose hours a plan counts. ``workers`` says which price is paid. ``nodes`` are
    named by their type."""

    currency: str
    workers: Workers
    speed: dict[str, dict[str, Speed]]
    nodes: dict[str, NodeType]
    _file: str = PrivateAttr("")

    def speeds(self, reference: str) -> dict[str, float]:
        """How fast devices are, as multiples of the reference, which is as fast as itself."""
        return {reference: 1.0, **self.speed.get(reference, {})}

    @property
    def file(self) -> str:
        """The name of the file that the table was read from."""
        return self._file


@dataclass(frozen=True)
class Rate:
    """What an hour of one device costs on nodes of one type."""

    node_type: str
    currency: str
    device_hour: float


@dataclass(frozen=True)
class Cost:
    """What the missing steps of a plan take on nodes of one type, if all devices of the nodes are
    at work all the time."""

    name: str
    node: NodeType
    device_hours: float
    on_demand: float
    spot: float | None

    def paid(self, workers: Workers) -> float:
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
    try:
        prices = Prices.model_validate(table)
    except ValidationError as error:
        first, *more = error.errors()
        place = ".".join(map(str, first["loc"]))
        others = f" (and {len(more)} more mistakes)" if more else ""
        raise PriceError(f"The price table {file}: {place}: {first['msg']}{others}") from error
    prices._file = file.name
    return prices


def scale_on(gpu_type: str, scale: Scale, prices: Prices) -> Scale:
    """The scale for GPUs of that type, by their speed; the scale itself if no type is asked for, or
    if the table does not tell its speed."""
    speed = prices.speeds(scale.device).get(gpu_type)
    if speed is None:
        return scale
    return replace(
        scale,
        device=gpu_type,
        flops_per_second=scale.flops_per_second * speed,
        decode_layer_seconds=scale.decode_layer_seconds / speed,
    )


@dataclass(frozen=True)
class Tariff:
    """The node types that could run a study, by name, and the price table that they are from.
    ``device`` is the device in whose hours the study is counted."""

    prices: Prices
    device: str
    nodes: Mapping[str, NodeType]

    def costs(self, device_hours: float) -> tuple[Cost, ...]:
        """What the hours cost on each of the node types."""
        speeds = self.prices.speeds(self.device)
        return tuple(
            _cost(name, node, device_hours / speeds[node.device])
            for name, node in self.nodes.items()
        )

    @property
    def money(self) -> str:
        """The currency, and which price is paid."""
        return f"{self.prices.currency} ({self.prices.workers.replace('_', ' ')})"

    def between(self, device_hours: float) -> str:
        """The least and the most that the hours cost; empty where no node type could run them."""
        paid = sorted(cost.paid(self.prices.workers) for cost in self.costs(device_hours))
        return " to ".join(dict.fromkeys(f"{amount:,.2f}" for amount in paid[:1] + paid[-1:]))


def tariff_of(
    device: str, prices: Prices, gpu_type: str = "", node_types: Iterable[str] = ()
) -> Tariff:
    """The tariff of all node types with a device whose speed is known, except those without the GPU
    asked for and, if there are ``node_types``, those that are not among them.

    Raises PriceError for a node type that is unknown or cannot run the study.
    """
    speeds = prices.speeds(device)
    fitting = {
        name: node
        for name, node in prices.nodes.items()
        if node.device in speeds and gpu_type in ("", node.device)
    }
    wanted = tuple(node_types)
    for name in wanted:
        if name not in fitting:
            names = ", ".join(fitting) or "none"
            raise PriceError(
                f"--node-types: {name} is not among the node types of {prices.file} that could "
                f"run this study: {names}"
            )
    kept = {name: node for name, node in fitting.items() if not wanted or name in wanted}
    return Tariff(prices, device, kept)


def rates(found: Iterable[Cost], prices: Prices) -> tuple[Rate, ...]:
    """The rates of the node types in a plan's costs."""
    return tuple(
        Rate(cost.name, prices.currency, cost.node.paid(prices.workers) / cost.node.devices)
        for cost in found
    )


def check_cost(plan: Plan, tariff: Tariff, most: float) -> None:
    """Raise CostError if the study would cost more than ``most`` on the dearest of the node types,
    or if its cost cannot be told."""
    if plan.unsized:
        raise CostError(
            f"--max-cost cannot be checked: the size of {', '.join(plan.unsized)} cannot be told "
            "from its name or files, so its steps have no estimate"
        )
    prices, found = tariff.prices, tariff.costs(plan.device_hours)
    if not found:
        raise CostError(
            f"--max-cost cannot be checked: {prices.file} has no node type for this study; give "
            "a table that has one with --prices FILE"
        )
    dearest = max(found, key=lambda cost: cost.paid(prices.workers))
    if (amount := dearest.paid(prices.workers)) > most:
        raise CostError(
            f"The study would cost about {amount:,.2f} {prices.currency} on {dearest.name}, "
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
            cost.name,
            node.cloud,
            f"{node.devices} {node.device}",
            hours_text(cost.device_hours),
            f"{cost.on_demand:,.2f}",
            "" if cost.spot is None else f"{cost.spot:,.2f}",
        )
    return table


def cost_sentence(plan: Plan, tariff: Tariff) -> str:
    between = tariff.between(plan.device_hours)
    if not between:
        return f"{tariff.prices.file} has no node type for this study, so its cost cannot be told."
    return (
        f"All steps on nodes of one type: {between} {tariff.money}. The head node, storage, "
        "booting and idle devices come on top."
    )


def _cost(name: str, node: NodeType, device_hours: float) -> Cost:
    node_hours = device_hours / node.devices
    spot = None if node.spot is None else node.spot * node_hours
    return Cost(name, node, device_hours, node.on_demand * node_hours, spot)
