"""What the parts of a server cost: what is known, from when, and what is not.

Nothing here is a guess. What the table lacks is asked of AWS's own price list, and what that does
not say is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tasks.engine.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable

HOURS = 730  # of a month, as AWS's own calculator counts

# A public IPv4 address, elastic or not, in dollars an hour in every region (AWS, since 2024-02);
# an elastic one also while the instance is stopped.
ADDRESS = 0.005

AS_OF = "2026-11-28"  # when the table was last compared with what AWS says

UNKNOWN = "price unknown"

FREE = "no charge"

BY_USE = "by the bytes in it"


@dataclass(frozen=True)
class Price:
    """What something costs a month, in dollars; None where nobody knows. `words` where it is not so
    much a month."""

    monthly: float | None = None
    words: str = ""

    def __str__(self) -> str:
        if self.words:
            return self.words
        return UNKNOWN if self.monthly is None else f"{self.monthly:.2f} $ a month"


NOTHING, USE = Price(0.0, FREE), Price(0.0, BY_USE)

# AWS's own list, in dollars: `instance` an hour, `disk` a gigabyte and month. What it did not say
# is not in it.
Listed = Mapping[str, float]


def instance(listed: Listed, runs: bool = True) -> Price:
    """Return the price of an instance; one that is stopped costs nothing itself."""
    if not runs:
        return NOTHING
    return Price(listed["instance"] * HOURS) if "instance" in listed else Price()


def disk(listed: Listed, gigabytes: int, type: str = "gp3") -> Price:
    """Return the price of a disk; that of another type than gp3 was not asked for."""
    known = type == "gp3" and "disk" in listed
    return Price(listed["disk"] * gigabytes) if known else Price()


def address() -> Price:
    """Return the price of a public address."""
    return Price(ADDRESS * HOURS)


def summed(prices: Iterable[tuple[str, Price]]) -> str:
    """Add up prices, each with the name of what it is for, and say what could not be added."""
    prices = list(prices)
    known = sum(price.monthly for _, price in prices if price.monthly is not None)
    unknown = [name for name, price in prices if price.monthly is None]
    by_use = [name for name, price in prices if price.words == BY_USE]
    words = f"{known:.2f} $ a month"
    if unknown:
        words += f", and {' and '.join(unknown)}, whose price is unknown"
    if by_use:
        words += f"; the {' and the '.join(by_use)} {BY_USE}"
    return words


def source(listed: Listed) -> str:
    """Say where prices are from."""
    if listed:
        return f"AWS's price list of today; addresses as of {AS_OF}; without tax and traffic"
    return (
        f"as of {AS_OF}, without tax and traffic; AWS's price list did not answer "
        "(pricing:GetProducts)"
    )
