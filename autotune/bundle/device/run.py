"""Answers one prompt with this bundle's model: python run.py "some text". See README.md."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True  # a file more, and verify.py would find the bundle changed
sys.path.insert(0, str(HERE))

if sys.version_info < (3, 11):  # noqa: UP036 - the device may have an older one
    print("run.py needs Python 3.11 or newer, found " + sys.version.split()[0], file=sys.stderr)
    sys.exit(2)
for stream in (sys.stdout, sys.stderr):
    stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]

if __name__ == "__main__":
    from objectives.ask import main

    sys.exit(main(HERE, sys.argv[1:]))
