"""Copies of the tree: with another model in `model/`, as README's "Make it yours" says, and elsewhere, to be built again."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def copy_of_the_tree(folder: Path) -> Path:
    """The files that git knows, with this checkout's environments linked in: the same lock makes the same ones."""
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in tracked.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for environment in ROOT.glob(".venv*"):
        (folder / environment.name).symlink_to(environment)
    shutil.rmtree(folder / "model" / "sample")
    (folder / "model" / "sample").mkdir()
    return folder


def lay_penguins(folder: Path) -> Path:
    """Make a tree of README's penguins: categories, missing cells, three classes."""
    import palmerpenguins

    tree = copy_of_the_tree(folder)
    (edit,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert edit.count("\n") < 40
    (tree / "model" / "features.py").write_text(edit)
    palmerpenguins.load_penguins().to_csv(tree / "model" / "sample" / "penguins.csv", index=False)
    return tree


def tree_elsewhere(folder: Path) -> Path:
    """The files that git has, in another folder, with other times and the modes of another umask."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    for name in filter(None, listed):
        target = folder / name.decode()
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name.decode(), target)
        target.chmod((ROOT / name.decode()).stat().st_mode | 0o660)
        os.utime(target, (1_000_000_000, 1_000_000_000))
    return folder


def build_from(tree: Path, command: list[str]) -> None:
    """Run a build of an image in a tree, with BuildKit."""
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    built = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-3000:]
