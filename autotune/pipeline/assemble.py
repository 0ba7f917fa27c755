"""An adapter's artifact: the base model's at the same deploy point, with the layer matrices that differ written anew.

Merged weights have the shapes of the base's, so every byte keeps its place; what an adapter leaves
alone is a hard link to the point's file.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from autotune.errors import AssemblyError
from autotune.pipeline import weight_files
from autotune.pipeline.encode import encode
from autotune.pipeline.merge import MergedWeights
from autotune.pipeline.point import ARTIFACT_FOLDER, ArtifactInfo, ChangedWeight, Layout, describe, read_layout
from autotune.pipeline.progress import Report, silent
from autotune.pipeline.template import matrix


def assemble(point: Path, base: Path, adapter: Path, out: Path, report: Report = silent) -> ArtifactInfo:
    """Write the artifact of ``adapter`` (PEFT's own format) at ``point`` to the new folder ``out``.

    ``point`` is the folder that ``make_point`` wrote for ``base``. One layer matrix is held at a time.

    Raises AssemblyError when the adapter does not fit the base, changes what lies outside the layer
    matrices, or makes weights that the point's precision cannot hold.
    """
    start = time.perf_counter()
    layout = read_layout(point)
    with MergedWeights(base, adapter) as weights:
        require_places(weights, layout, adapter)
        touched = {c.places[0].file for c in layout.weights if weights.changes(c.weight)}
        for file in (point / ARTIFACT_FOLDER).rglob("*"):
            if file.is_file() and file.name not in touched:
                target = out / file.relative_to(point / ARTIFACT_FOLDER)
                target.parent.mkdir(parents=True, exist_ok=True)
                weight_files.link(file, target)
        mine = [c for c in layout.weights if c.places[0].file in touched]
        for done, name in enumerate(sorted(touched)):
            _write(weights, layout.floats, [c for c in mine if c.places[0].file == name],
                   point / ARTIFACT_FOLDER / name, out / name)
            report(done + 1, len(touched), name)
    return describe(out, start)


def _write(weights: MergedWeights, floats: str, changed: list[ChangedWeight], source: Path, target: Path) -> None:
    """The file ``source`` with the weights that the adapter changes in their places."""
    untouched = [c for c in changed if not weights.changes(c.weight)]
    if untouched:
        shutil.copyfile(source, target)
    with target.open("r+b" if untouched else "wb") as file:
        for c in changed:
            if weights.changes(c.weight):
                arrays = encode(matrix(weights, c.weight, floats), c.encoding, c.weight.name)
                for place, array in zip(c.places, arrays, strict=True):
                    if array.nbytes != place.length:
                        raise AssemblyError(f"{c.weight.name}: {array.nbytes} bytes found; accepted are the "
                                            f"{place.length} that the point has")
                    weight_files.write_at(file, place.offset, array)


def require_places(weights: MergedWeights, layout: Layout, adapter: Path) -> None:
    """Raises AssemblyError when the adapter changes what has no place in an artifact of this layout."""
    known = {part.module for c in layout.weights for part in c.weight.parts}
    without = sorted(weights.modules() - known)
    if without:
        raise AssemblyError(f"{adapter}: it changes {without[0]}, which an artifact's template cannot take; accepted "
                            "are adapters of the attention and MLP matrices")
