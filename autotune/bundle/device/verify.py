"""Checks this bundle on this device: its files, its answers, its speed: python verify.py. See README.md."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True  # a file more, and the bundle would be changed
sys.path.insert(0, str(HERE))

if sys.version_info < (3, 11):  # noqa: UP036 - the device may have an older one
    print("verify.py needs Python 3.11 or newer, found " + sys.version.split()[0], file=sys.stderr)
    sys.exit(2)
for stream in (sys.stdout, sys.stderr):
    stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]

if __name__ == "__main__":
    try:
        from objectives.verify import main
    except Exception as error:  # noqa: BLE001 - what checks the files may itself be damaged
        print(f"FAIL: this bundle is damaged: what checks it cannot be loaded: {error}")
        sys.exit(1)
    sys.exit(main(HERE, sys.argv[1:]))
