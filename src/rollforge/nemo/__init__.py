"""NeMo Gym: its configuration, its commands, and its server code in our process."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
import warnings


def compat_path() -> str:
    """The directory with our `nemo_gym`, the names that server code imports; for the PYTHONPATH of a child process."""
    return os.path.join(os.path.dirname(__file__), "compat")


def activate(root: str | os.PathLike[str] | None = None, *, ours: bool = False) -> None:
    """Make `import nemo_gym` work in this process, and `resources_servers.<name>` below `root`.

    An installed NeMo Gym is used instead of ours, with a warning, unless `ours` says otherwise. The source in a checkout
    is not: it needs Ray and all else that an installation brings.
    """
    if root is not None:
        path = os.path.abspath(root)
        if path not in sys.path:
            sys.path.insert(0, path)
        os.environ.setdefault("ROLLFORGE_NEMO_ROOT", path)
    if compat_path() in sys.path:
        return
    if not ours and installed():
        warnings.warn("NeMo Gym is installed: its own nemo_gym is used, not rollforge's", RuntimeWarning, stacklevel=2)
        return
    # At the end, so that what a checkout brings comes first, but for its own nemo_gym.
    sys.path.insert(0 if importlib.util.find_spec("nemo_gym") is not None else len(sys.path), compat_path())


def installed() -> bool:
    """Whether NeMo Gym itself is, with what it needs."""
    try:
        importlib.metadata.distribution("nemo-gym")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
