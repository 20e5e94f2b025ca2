"""`python -m adapt VERB …` is `adapt VERB …`; `accelerate launch -m adapt VERB …` runs it in several processes."""

from __future__ import annotations

import sys

from adapt.launch import launched

if __name__ == "__main__":
    raise SystemExit(launched(["--module", "adapt"], [], sys.argv[1:]))
