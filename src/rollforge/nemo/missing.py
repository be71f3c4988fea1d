"""What helps where a server's code, or its tests, import what is not here."""

from __future__ import annotations

import re
from pathlib import Path

from rollforge.nemo import installed
from rollforge.nemo.config import TYPES

PACKAGES = {
    "PIL": "pillow",
    "attr": "attrs",
    "aviary": "fhaviary",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "fitz": "pymupdf",
    "git": "gitpython",
    "pptx": "python-pptx",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "tavily": "tavily-python",
    "yaml": "pyyaml",
}
"""Modules that their packages are not called after."""


def remedy(directory: Path, said: str) -> str:
    """The command or advice for the first import that failed, by what Python said of it: a module or name of NeMo Gym, a
    line of the server's own requirements.txt, else the package of that module. Empty if nothing is known to help."""
    module, name = _lacking(said)
    top = module.partition(".")[0]
    if top == "nemo_gym" and not installed():
        return f"rollforge does not provide {f'{name} of ' if name else ''}{module}: run it with NeMo Gym itself"
    if top in TYPES and not name:
        return f"it is another server's code, and {'/'.join(module.split('.')[:2])} is not here"
    if name or top in ("", "nemo_gym"):
        return ""
    package = PACKAGES.get(top, top)
    lines = _requirements(directory)
    found = [line for line in lines if _words(re.split(r"[\s\[<>=!~;@]", line)[0]) in (_words(top), _words(package))]
    found = found or [line for line in lines if any(f"_{_words(one)}_" in f"_{_words(line)}_" for one in (top, package))]
    wanted = " ".join(f"'{line}'" for line in found or [package])
    return f"pip install {wanted}"


_NO_MODULE = re.compile(r"No module named '([\w.]+)'")
_NO_NAME = re.compile(r"cannot import name '(?P<name>\w+)' from '(?P<module>[\w.]+)'")
_NO_ATTRIBUTE = re.compile(r"module '(?P<module>[\w.]+)'.* (?:has no|does not have the) attribute '(?P<name>\w+)'")


def _lacking(said: str) -> tuple[str, str]:
    """A module, and the name in it if that is what is not there."""
    if found := _NO_MODULE.search(said):
        return found[1], ""
    named = _NO_NAME.search(said) or _NO_ATTRIBUTE.search(said)
    return (named["module"], named["name"]) if named else ("", "")


def _requirements(directory: Path) -> list[str]:
    """The lines of a server's requirements.txt, without NeMo Gym itself, options and comments."""
    file = directory / "requirements.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    found = (line.partition(" #")[0].strip() for line in lines)
    return [line for line in found if line and not line.startswith(("#", "-")) and "nemo-gym" not in line]


def _words(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
