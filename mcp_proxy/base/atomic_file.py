"""Replacing a file as a whole: readers see the old content or the new one, also after a power cut.

What is written, and what a failure means, is the caller's.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Put ``content`` in place of ``path``, with mode 0600, and wait until the disk has it.

    The directory must exist. Raises `OSError`; the old file is then untouched, unless only the directory's own
    ``fsync`` failed.
    """
    # Beside the file: a rename is atomic within one file system only.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
