"""Sections of `make soak` that are long tests: what they prove, and what pytest says of them."""

from __future__ import annotations

from local_test.soak.measured import section
from local_test.soak.stops import pytest_says

PROOFS: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {
    "hosts": (
        "Several hosts",
        {
            "2 and 3 hosts: rows sharded and replicated, hosts lost, cut off and stopped, a search shared out, local mode": (
                "tests/test_distributed.py",
                "tests/test_sdk.py::test_three_containers_train_one_model_and_end_in_order",
            )
        },
    ),
    "conformance": (
        "Conformance",
        {
            "a sound image, and others with one fault each, by all rules": ("tests/test_broken.py",),
            "servers of others: what is known of them is what is said": ("tests/test_foreign.py",),
            "the same in the SDK's local mode: it agrees, but for what it lets pass": ("tests/test_agreement.py",),
            "another data set, by both generations of local mode": ("tests/test_yours.py",),
        },
    ),
    "deploy": (
        "Deploy",
        {
            "every verb, each of its calls failing in turn in five ways; Ctrl-C after each change": ("tests/test_faults.py",),
            "push: the same, and both engines against real registries": ("tests/test_push.py",),
            "buildspec.yml, phase by phase in a clean container": ("tests/test_buildspec.py",),
            "two builds of the same inputs have the same layers": ("tests/test_image.py",),
            "the Edge TPU compiler's recipe, against a package source of our own": ("tests/test_compile.py",),
            "two builds of the edge target, and of the demo model, give the same bytes": (
                "tests/test_device.py",
                "tests/test_photos.py",
            ),
        },
    ),
}
"""Section, then its title, and what is proved to the tests that prove it."""


def proof(name: str) -> str:
    """Run a section's tests, the long ones too; return its table."""
    title, proved = PROOFS[name]
    rows = [[what, pytest_says({"LONG": "1"}, *tests).splitlines()[-1]] for what, tests in proved.items()]
    return section(title, f"make soak SECTIONS={name}", ["what", "pytest says"], rows)
