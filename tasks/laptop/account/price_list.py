"""AWS's own price list, asked for what our table lacks; without an answer prices are unknown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.laptop.account.session import Account


def listed(account: Account, type: str) -> dict[str, float]:
    """Return dollars for `instance` (an hour) and `disk` (gp3, a gigabyte and month).

    Without a type there is no instance to ask for. What is refused, is not there or is not one
    price alone is left out.
    """
    asked = {
        "instance": {
            "instanceType": type,
            "operatingSystem": "Linux",
            "tenancy": "Shared",
            "capacitystatus": "Used",
            "preInstalledSw": "NA",
        },
        "disk": {"volumeApiName": "gp3", "productFamily": "Storage"},
    }
    found = {
        name: _price(account, {**fields, "regionCode": account.region})
        for name, fields in asked.items()
        if type or name != "instance"
    }
    return {name: price for name, price in found.items() if price}


def _price(account: Account, fields: dict[str, str]) -> float | None:
    from botocore.exceptions import BotoCoreError, ClientError

    filters = [{"Type": "TERM_MATCH", "Field": key, "Value": fields[key]} for key in fields]
    try:
        answer = account.client("pricing").get_products(
            ServiceCode="AmazonEC2", Filters=filters, MaxResults=10
        )
    except (BotoCoreError, ClientError):
        return None
    prices = {price for text in answer["PriceList"] for price in _on_demand(json.loads(text))}
    return prices.pop() if len(prices) == 1 else None


def _on_demand(product: Any) -> set[float]:
    """Return the prices in dollars that are asked on demand; those of nothing at all left out."""
    found = {
        float(dimension["pricePerUnit"].get("USD", 0))
        for term in product.get("terms", {}).get("OnDemand", {}).values()
        for dimension in term["priceDimensions"].values()
    }
    return found - {0.0}
