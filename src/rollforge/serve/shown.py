"""What others may see of a text that says what something is made of, or where it is."""

from __future__ import annotations

import os
import re
import shlex


def shown(text: str) -> str:
    """URLs without user, password and query, a command as the name of its program: keys have been seen in all of them."""
    if text.startswith(_COMMAND):
        return _COMMAND + program(text.removeprefix(_COMMAND))
    return _USER.sub(r"\1", _QUERY.sub(r"\1", text))


def program(command: str) -> str:
    """The name of the program that a command line begins with."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    names = (os.path.basename(word) for word in words if not _ASSIGNMENT.match(word))
    return next(names, "")


_COMMAND = "command:"
_ASSIGNMENT = re.compile(r"\w+=")
_QUERY = re.compile(r"(://[^\s?#]*)[?#]\S*")
_USER = re.compile(r"(://)[^/\s]*@")
