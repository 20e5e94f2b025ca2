"""JSON files of a moderate size, from strangers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adapt.data.problems import Bad

MOST = 1 << 30
"""Most bytes that are read at once."""


def read_json(file: Path) -> Any:
    """The content of a JSON file.

    Raises:
        Bad: too large, no text, or no JSON; with the line.
    """
    try:
        size = file.stat().st_size
        if size > MOST:
            raise Bad("bad annotation", f"{size / MOST:.1f} GB; files of up to 1 GB are read")
        text = file.read_text(encoding="utf-8-sig")
        content = json.loads(text)
        if "\\u" in text:  # an escape can be half a character, which no file and no table can hold
            json.dumps(content, ensure_ascii=False).encode("utf-8")
        return content
    except json.JSONDecodeError as error:
        raise Bad("bad annotation", f"line {error.lineno}: it is not JSON: {error.msg}") from None
    except RecursionError:
        raise Bad("bad annotation", "nested too deeply") from None
    except UnicodeEncodeError as error:
        raise Bad("bad annotation", f"half a character, {error.object[error.start]!r}") from None
    except UnicodeDecodeError:
        raise Bad("bad annotation", "it is not UTF-8 text") from None
    except ValueError:  # Python reads no number of more than 4,300 digits
        raise Bad("bad annotation", "a number with thousands of digits") from None
    except OSError as error:
        raise Bad("bad annotation", f"it cannot be read: {error.strerror}") from None
