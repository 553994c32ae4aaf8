"""What people are told of new vulnerabilities, and what they have been told: no news twice, and none lost."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from deploy.cloud import Cloud
from deploy.errors import BadSettings, NotThere
from deploy.supply.findings import Finding

LONGEST_SUBJECT = 100
"""SNS takes no more, and ASCII alone."""


@dataclass(frozen=True)
class News:
    """A finding, with the endpoints whose people don't know of it."""

    finding: Finding
    images: tuple[str, ...]
    endpoints: tuple[str, ...]

    @property
    def key(self) -> str:
        """What it is remembered by: the next image with the same package is no news, be its version another."""
        return key_of(self.finding)

    @property
    def subject(self) -> str:
        """What stands above the message."""
        number = f"{len(self.endpoints)} endpoint" + ("s" if len(self.endpoints) > 1 else "")
        text = f"{self.finding.severity.title()}: {self.finding.id} in {self.finding.package}, run by {number}"
        return text.encode("ascii", "replace").decode()[:LONGEST_SUBJECT]

    def text(self, place: str) -> str:
        """Return the message; `place` is the endpoints' Region and account."""
        finding = self.finding
        lines = (
            f"{finding.id} ({finding.severity}) is in {finding.package} {finding.version} ({finding.type}).",
            f"Fixed in: {', '.join(finding.fixed_in) or 'no version is known yet'}",
            f"Endpoints that run it, in {place}: {', '.join(self.endpoints)}",
            f"Images: {', '.join(self.images)}",
            f"Found by {', '.join(finding.source)} on {dt.datetime.now(dt.UTC).date()}.",
            "Next: make image, python -m deploy push, python -m deploy endpoint. Where no fix is to be had, deploy/allow.toml "
            "takes the finding with a reason and a last day.",
        )
        return "\n".join(lines)


def key_of(finding: Finding) -> str:
    """Return what a finding is remembered by."""
    return f"{finding.id} {finding.package}"


@dataclass
class Memory:
    """What was told of each endpoint, kept in S3 between runs."""

    cloud: Cloud
    bucket: str
    key: str
    told: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, cloud: Cloud, address: str) -> Memory:
        """Return what is remembered at an s3:// address.

        At first nothing is, and that is stored at once: where it can't be, nobody is told the same news day after day.

        Raises:
            BadSettings: it is no address of an object.
            Refused: there is no such bucket, or it may not be read or written.
        """
        bucket, _, key = address.removeprefix("s3://").partition("/")
        if not (address.startswith("s3://") and bucket and key):
            raise BadSettings(f"--memory is {address!r}; s3://BUCKET/KEY was expected.")
        found = cloud.find("s3", "get_object", Bucket=bucket, Key=key)
        if found:
            return cls(cloud, bucket, key, json.loads(found["Body"].read())["told"])
        first = cls(cloud, bucket, key)
        first.write()
        return first

    def add(self, news: News) -> None:
        """Remember at once what was told, so that a run that is cut short does not tell it again."""
        for endpoint in news.endpoints:
            self.told[endpoint] = sorted({*self.told.get(endpoint, ()), news.key})
        self.write()

    def keep(self, endpoints: Iterable[str]) -> None:
        """Forget all other endpoints: one that comes back is told of anew."""
        if gone := set(self.told) - set(endpoints):
            self.told = {name: keys for name, keys in self.told.items() if name not in gone}
            self.write()

    def write(self) -> None:
        """Store it."""
        body = json.dumps({"told": self.told}, indent=1, sort_keys=True)
        what = f"Remember in s3://{self.bucket}/{self.key} what was told"
        try:
            self.cloud.change("s3", "put_object", what, Bucket=self.bucket, Key=self.key, Body=body.encode())
        except NotThere as error:
            raise NotThere(f"{error.message}. Make the bucket, or name another: --memory s3://BUCKET/KEY.") from None


def news_of(
    found: Mapping[str, Iterable[Finding]],
    running: Mapping[str, Iterable[str]],
    told: Mapping[str, Iterable[str]],
    matters: Callable[[Finding], bool],
) -> list[News]:
    """Return what is to be told, the gravest first.

    Args:
        found: image -> its findings.
        running: image -> the endpoints that run it.
        told: endpoint -> what was told of it.
        matters: whether people want to know of a finding.
    """
    news: dict[str, News] = {}
    for image, findings in found.items():
        for finding in filter(matters, findings):
            key = key_of(finding)
            endpoints = {name for name in running[image] if key not in told.get(name, ())}
            if endpoints:
                before = news.get(key, News(finding, (), ()))
                images = tuple(sorted({*before.images, image}))
                news[key] = News(before.finding, images, tuple(sorted(endpoints.union(before.endpoints))))
    return sorted(news.values(), key=lambda one: -one.finding.rank)
