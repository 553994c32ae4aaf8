"""`python -m edge compile MODEL.tflite`: the Edge TPU's own compiler on a model, and what came of it."""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import click

from contract.edge import EDGE, EdgeManifest, read_edge_manifest, write_edge_manifest
from contract.errors import BadArtifact, MissingLibrary
from edge.checker import judge
from edge.compiler.container import IMAGE, prepare, run_compiler
from edge.compiler.log import Log, describe, read_log
from edge.graph import read_graph

ENDING = "_edgetpu"


@click.command("compile")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--image", default=IMAGE, show_default=True, help="The compiler's container; the default is built where missing.")
def compile_model(model: Path, image: str) -> None:
    """Compile MODEL.tflite for the Edge TPU and write MODEL_edgetpu.tflite beside it.

    Where edge.json stands beside MODEL.tflite and names it, the compiled file is added to it. Exits with 0 where something
    runs on the Edge TPU. Without a compiler the verdict of `check` stands in its place, and the exit code is 1.
    """
    expected = judge.judge(read_graph(model))
    if expected.verdict is judge.Verdict.COMPILED:
        raise BadArtifact(f"{model} is compiled already. Give the model that it was compiled from.", file=str(model))
    manifest = _manifest(model)
    try:
        engine = prepare(image)
    except MissingLibrary as missing:
        click.echo(f"{missing.message}\nThe verdict of `check` stands in its place:\n", err=True)
        click.echo("\n".join(judge.describe(model.name, expected)))
        sys.exit(missing.exit_code)
    log, compiled = _compile(engine, image, model)
    click.echo("\n".join(describe(model.name, log)))
    if log.ending.value != expected.verdict.value:
        click.echo(f"`check` expected {expected.verdict}" + (f": {expected.reason}." if expected.reason else "."))
    if compiled is None:
        sys.exit(1)
    known = _record(manifest, model, compiled, log) if manifest else f"no {EDGE} beside it names {model.name}"
    click.echo(f"\nWrote {compiled} ({compiled.stat().st_size:,} bytes); {known}.")


def _compile(engine: str, image: str, model: Path) -> tuple[Log, Path | None]:
    """Return what the compiler says, and the compiled model, now beside the other, where it is of use."""
    target = model.with_name(f"{model.stem}{ENDING}.tflite")
    with _folder_beside(model) as name:
        folder = Path(name)
        shutil.copyfile(model, folder / model.name)
        said = run_compiler(engine, image, folder, model.name)
        written = folder / f"{model.stem}{ENDING}.log"
        log = read_log(said + (written.read_text(errors="replace") if written.is_file() else ""))
        if not log.compiled:
            if not log.errors and log.duration_ms is None:
                log = replace(log, errors=tuple(line for line in said.strip().splitlines()[-3:] if line.strip()))
            return log, None
        if not (folder / target.name).is_file():
            raise BadArtifact(f"The compiler says that it compiled {model.name}, but left no {target.name}.", file=target.name)
        (folder / target.name).replace(target)
    return log, target


def _folder_beside(model: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(dir=model.parent, prefix=".compile-")
    except OSError as error:
        where = model.parent.resolve()
        raise BadArtifact(
            f"Nothing can be written to {where}: {error.strerror}. Copy {model.name} elsewhere.", file=str(model)
        ) from error


def _manifest(model: Path) -> EdgeManifest | None:
    """Return the manifest beside a model that names it, checked against all its files; read before anything is replaced."""
    if not (model.parent / EDGE).is_file():
        return None
    manifest = read_edge_manifest(model.parent)
    return manifest if model.name in manifest.artifacts else None


def _record(manifest: EdgeManifest, model: Path, compiled: Path, log: Log) -> str:
    facts = {"compiled_from": model.name, "compiler": log.version, "on_edge_tpu": log.edge_tpu, "on_cpu": log.cpu}
    artifacts = {**manifest.artifacts, compiled.name: facts}
    write_edge_manifest(compiled.parent, replace(manifest, artifacts=artifacts))
    return f"{EDGE} names it now"
