"""Entry for `accelerate launch adapt/finetune.py recipe=clip_lora [key=value …]`."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# A script's own folder comes first on the path, where our children would hide libraries of the same name.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]
sys.path.insert(0, str(HERE.parent))

from adapt.launch import launched  # noqa: E402

if __name__ == "__main__":
    raise SystemExit(launched([str(HERE / "finetune.py")], ["finetune"], sys.argv[1:]))
