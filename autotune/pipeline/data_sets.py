"""Data sets of the hub, and folders in the formats of the ``datasets`` library."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from autotune.errors import DataError, Problem
from autotune.pipeline.data import ACCEPTED_SOURCES, RawRow, RawTable
from autotune.pipeline.silence import silenced

_SPEC = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*/[\w.-]+)(@(?P<revision>[\w][\w./-]*))?(:(?P<split>\w[\w.-]*))?"
)
#: what publishers call the splits that a study calls train, valid and test
_SPLIT_NAMES = {
    "train": ("train",),
    "valid": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}


def parse_hub_name(source: str) -> tuple[str, str | None, str | None]:
    """``org/name[@revision][:split]`` → (name, revision, split). Raises DataError for anything else."""
    match = _SPEC.fullmatch(source)
    if match is None or ".." in match["name"]:
        raise DataError([Problem(source, "", "no such file, and no data set's name", ACCEPTED_SOURCES)])
    return match["name"], match["revision"], match["split"]


def read_data_set(source: str, base_dir: Path, split_name: str) -> RawTable:
    """A split of a hub data set, or of a local folder (``folder`` or ``folder:split``).

    Class labels become their names. No code of a data set is run: ``datasets`` no longer can.

    Raises:
        DataError: no such data set or split, or the hub cannot be reached.
    """
    folder, _, folder_split = source.rpartition(":") if _is_split(source) else (source, "", "")
    path = base_dir / Path(folder).expanduser()
    if folder and path.is_dir():
        name, revision, split = str(path), None, folder_split or None
    else:
        name, revision, split = parse_hub_name(source)
        path = Path()
    with silenced():
        try:
            available = _load(name, revision, is_folder=path != Path())
        except Exception as error:  # the library lets through whatever its HTTP and file layers raise
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise DataError([Problem(source, "", f"cannot be loaded: {first}", ACCEPTED_SOURCES)]) from error
    return _table(source, available, split, split_name)


def _is_split(source: str) -> bool:
    """Whether the part after the last colon can be a split (and is no Windows drive's path)."""
    return bool(re.fullmatch(r".+:\w[\w.-]*", source))


def _load(name: str, revision: str | None, *, is_folder: bool) -> dict[str, Any]:
    """Split name → ``datasets.Dataset``."""
    import datasets

    if is_folder and ((Path(name) / "dataset_dict.json").is_file() or (Path(name) / "state.json").is_file()):
        loaded = datasets.load_from_disk(name)
    else:
        loaded = datasets.load_dataset(name, revision=revision)
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


def _table(source: str, available: dict[str, Any], split: str | None, split_name: str) -> RawTable:
    import datasets

    wanted = (split,) if split else _SPLIT_NAMES.get(split_name, (split_name,))
    chosen = next((name for name in wanted if name in available), None)
    if chosen is None:
        found = f"no split {' or '.join(wanted)}"
        accepted = ", ".join(f"{source.split(':')[0]}:{name}" for name in available)
        raise DataError([Problem(source, "", found, accepted)])
    data = available[chosen]
    columns = {name: data[name][:] for name in data.column_names}
    for name, feature in data.features.items():
        if isinstance(feature, datasets.ClassLabel):
            columns[name] = [None if i is None or i < 0 else feature.int2str(i) for i in columns[name]]
    names = tuple(columns)
    rows = [
        RawRow(dict(zip(names, values, strict=True)), number)
        for number, values in enumerate(zip(*columns.values(), strict=True), start=1)
    ]
    return RawTable(source, "row", rows, [], names)
