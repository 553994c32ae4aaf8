"""AWS's Price List API, which moto has not: it answers from the price lists it was given, and with none for none."""

from __future__ import annotations

import json
from typing import Any

from local_test.cloud.wire import Asked
from local_test.cloud.world import World

PAGE = 100


def products(world: World, asked: Asked) -> dict[str, Any]:
    """Answer GetProducts: each price list is a JSON text in a list."""
    wanted = {each["Field"]: each["Value"] for each in asked.request.get("Filters", ())}
    chosen = [
        each
        for each in world.prices
        if each.get("serviceCode", asked.request["ServiceCode"]) == asked.request["ServiceCode"] and _fits(each, wanted)
    ]
    first, most = int(asked.request.get("NextToken", 0)), asked.request.get("MaxResults", PAGE)
    more = {"NextToken": str(first + most)} if len(chosen) > first + most else {}
    return {"FormatVersion": "aws_v1", "PriceList": [json.dumps(each) for each in chosen[first : first + most]], **more}


def _fits(price: dict[str, Any], wanted: dict[str, str]) -> bool:
    """Say whether a product has every attribute asked for; names and values compare without case, as AWS's do."""
    facts = {name.lower(): str(value).lower() for name, value in price.get("product", {}).get("attributes", {}).items()}
    facts |= {"servicecode": str(price.get("serviceCode", "")).lower(), **facts}
    facts["productfamily"] = str(price.get("product", {}).get("productFamily", "")).lower()
    return all(facts.get(name.lower()) == value.lower() for name, value in wanted.items())
