"""Checks a bundle on the device that it is meant for: what its verify.py does, and ``autotune verify``.

``python -m objectives.verify FOLDER [--json] [--quick]``. First every file, with the standard library alone, and
nothing else where one is not as it was; then the answers to the sample rows, the timings and the limits.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from objectives import integrity
from objectives.integrity import Checked

#: FAIL is 1 as every failure is.
EXIT = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 4}
EXIT_USAGE, EXIT_INTERRUPTED = 2, 130
_NEEDED = ("numpy", "psutil", "onnxruntime", "onnxruntime_genai")
_EPILOG = "Exit codes: 0 PASS; 1 FAIL, or a damaged bundle; 2 bad usage; 4 INCONCLUSIVE."


def main(folder: Path, argv: Sequence[str]) -> int:
    """Print the report; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="verify.py", description="Checks this bundle's files, its answers and its speed on this device.",
        epilog=_EPILOG)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="files and answers alone; nothing is timed")
    asked = parser.parse_args(argv)
    try:
        return _verify(folder.resolve(), as_json=asked.json, quick=asked.quick)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _verify(folder: Path, *, as_json: bool, quick: bool) -> int:
    _say(f"checking the files of {folder}")
    checked = integrity.check(folder)
    if checked.problems or checked.manifest is None:
        return _damaged(checked, as_json)
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"not installed: {', '.join(missing)}; python -m pip install -r {folder / 'requirements.txt'}",
              file=sys.stderr)
        return EXIT_USAGE
    from objectives import examination, verify_text

    found = examination.examine(folder, checked, quick=quick, say=_say)
    print(json.dumps(found, ensure_ascii=False, allow_nan=False) if as_json else verify_text.told(found))
    return EXIT[found["verdict"]]


def _damaged(checked: Checked, as_json: bool) -> int:
    """Say which files are not as they were; nothing was run."""
    found: Mapping[str, Any] = {"schema": "autotune/verify@1", "verdict": "FAIL",
                                "files": {"verdict": "FAIL", "problems": list(checked.problems)}}
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        print("FAIL: this bundle is not as it was made, so nothing of it was run:")
        for problem in checked.problems:
            print(f"  {problem}")
    return EXIT["FAIL"]


def _say(sentence: str) -> None:
    print(f"{sentence} …", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
