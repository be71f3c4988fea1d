"""docs/reference/gallery.md is what the environments do. To write it anew: REWRITE=1 pytest tests/test_gallery.py"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

from rollforge.registry import BUILT_IN
from tests.jails import isolated  # noqa: F401 # a fixture

SCRIPT = Path(__file__).parents[1] / "scripts" / "gallery.py"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gallery", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.usefixtures("isolated")
async def test_the_page_says_what_the_environments_do() -> None:
    gallery = script()
    old = gallery.PAGE.read_text(encoding="utf-8")
    new = await gallery.page(old)
    if os.environ.get("REWRITE"):
        gallery.PAGE.write_text(new, encoding="utf-8")
        old = new
    said, found = gallery.sections(old), gallery.sections(new)
    # Its texts are those of the library's version, and it may not be installed.
    del said["reasoning_gym"], found["reasoning_gym"]
    assert said == found
    assert old.startswith(gallery.HEAD)
    assert {*found, "reasoning_gym"} == set(BUILT_IN["env"])
