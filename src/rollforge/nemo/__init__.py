"""NeMo Gym: its configuration, its commands, and its server code in our process."""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings


def compat_path() -> str:
    """The directory with our `nemo_gym`, the names that server code imports; for the PYTHONPATH of a child process."""
    return os.path.join(os.path.dirname(__file__), "compat")


def activate(root: str | os.PathLike[str] | None = None, *, ours: bool = False) -> None:
    """Make `import nemo_gym` work in this process, and `resources_servers.<name>` below `root`.

    An installed NeMo Gym is used instead of ours, with a warning, unless `ours` says otherwise.
    """
    if root is not None:
        path = os.path.abspath(root)
        if path not in sys.path:
            sys.path.insert(0, path)
        os.environ.setdefault("ROLLFORGE_NEMO_ROOT", path)
    if compat_path() in sys.path:
        return
    if not ours and importlib.util.find_spec("nemo_gym") is not None:
        warnings.warn("NeMo Gym is installed: its own nemo_gym is used, not rollforge's", RuntimeWarning, stacklevel=2)
        return
    # At the end what is installed and what a checkout brings comes first; at the front ours does.
    sys.path.insert(0 if ours else len(sys.path), compat_path())
