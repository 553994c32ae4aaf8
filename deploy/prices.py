"""What an hour costs, as AWS's Price List API says it today; no price stands in the source.

A price that can't be asked stops nothing: it is unknown, and why is said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

from deploy.cloud import Cloud
from deploy.errors import DeployError

USES = {"Training": "Train", "Hosting": "Host", "Async": "AsyncInf", "Transform": "Tsform"}
"""What an instance is used for, and how its usage type begins in the price list: the same instance has a price for each."""
SERVERLESS = "ServerlessInf:Mem"


@dataclass(frozen=True)
class Price:
    """What one of something costs for as long as its unit says."""

    amount: Decimal | None = None
    """None where it is not known."""
    currency: str = ""
    listed: str = ""
    """The day on which AWS published the list."""
    why: str = ""
    """Why it is not known."""

    def __str__(self) -> str:
        """Return it for people."""
        return f"{self.sum()} ({self.source})"

    @property
    def source(self) -> str:
        """Where it comes from, or why it comes from nowhere."""
        return self.why if self.amount is None else f"AWS Price List, {self.listed}"

    def sum(self, count: int = 1) -> str:
        """Return what so many cost, for people."""
        return "price unknown" if self.amount is None else f"{(self.amount * count).normalize():f} {self.currency}"


def hourly(cloud: Cloud, use: str, instance_type: str, count: int = 1) -> str:
    """Return what instances cost an hour, for people.

    Args:
        cloud: whose Region's prices are asked.
        use: one of `USES`.
        instance_type: such as ml.m5.large.
        count: how many.
    """
    price = instance_price(cloud, use, instance_type)
    if price.amount is None:
        return str(price)
    if count == 1:
        return f"{price.sum()} an hour ({price.source})"
    return f"{price.sum()} an hour each, {count} instances {price.sum(count)} an hour ({price.source})"


def serverless(cloud: Cloud, memory_mb: int) -> str:
    """Return what a serverless endpoint of some memory costs while it answers, for people; it costs nothing otherwise."""
    price = serverless_price(cloud, memory_mb)
    if price.amount is None:
        return str(price)
    return f"{price.sum()} for each second of answering, nothing while idle ({price.source})"


@cache
def instance_price(cloud: Cloud, use: str, instance_type: str) -> Price:
    """Return the price of one instance an hour; asked once."""
    return _asked(cloud, f"{USES[use]}:{instance_type}", {"instanceName": instance_type})


@cache
def serverless_price(cloud: Cloud, memory_mb: int) -> Price:
    """Return the price of a second of answering; asked once."""
    return _asked(cloud, f"{SERVERLESS}-{memory_mb // 1024}GB", {"productFamily": "ML Serverless"})


def _asked(cloud: Cloud, usage: str, attributes: Mapping[str, str]) -> Price:
    regions = cloud.regions("pricing")
    if not regions:
        return Price(why=f"the Price List API does not know {cloud.region}")
    filters = [
        {"Type": "TERM_MATCH", "Field": field, "Value": value}
        for field, value in {"regionCode": cloud.region, **attributes}.items()
    ]
    request = {"ServiceCode": "AmazonSageMaker", "Filters": filters, "MaxResults": 100}
    try:
        answer = cloud.read("pricing", "get_products", in_region=regions[0], **request)
    except DeployError as error:
        return Price(why=error.message.partition(". ")[0])
    found = {price for text in answer["PriceList"] for price in _prices(json.loads(text), usage)}
    if len({(price.amount, price.currency) for price in found}) == 1:
        return max(found, key=lambda price: price.listed)
    return Price(why=f"the price list has {len(found) or 'none'} for {usage} in {cloud.region}")


def _prices(product: Mapping[str, Any], usage: str) -> Iterator[Price]:
    """Yield the prices on demand of a product, where its usage is the one meant.

    The usage type has the Region's short name in front (`EUW1-Host:ml.m5.large`); an allowance that is free has a price of 0.
    """
    if not re.search(rf"(?:^|-){re.escape(usage)}$", product["product"]["attributes"].get("usagetype", "")):
        return
    for term in product["terms"].get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            for currency, amount in dimension["pricePerUnit"].items():
                if Decimal(amount):
                    yield Price(Decimal(amount), currency, product["publicationDate"][:10])
