"""Gymnasium's environments, played in text: `gymnasium_env("FrozenLake-v1", actions=("left", "down", "right", "up"))`.

Anything with its `reset` and `step` will do: a registered id (with the package gymnasium installed), a class, a function
that makes one. The policy names its action, `<action>left</action>`; what it sees is the `ansi` rendering where there is
one, else the observation as JSON. What is no action is told to it, and nothing happens. The rewards are summed.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

from rollforge.envs.actions import action_text, chosen_action
from rollforge.envs.base import Step
from rollforge.envs.decorate import PythonEnv
from rollforge.envs.steps import as_step
from rollforge.envs.tasks import Tasks
from rollforge.envs.tools import result_text
from rollforge.errors import UserError, VerifierFault, short
from rollforge.records.items import Json
from rollforge.records.lossless import loads

Actions = Sequence[str] | Mapping[str, Any]


def gymnasium_env(
    source: str | Callable[..., Any],
    *,
    actions: Actions | None = None,
    observe: Callable[[Any, Any], Any] | None = None,
    prompt: str | None = None,
    tasks: Tasks | None = None,
    name: str | None = None,
    solve: Callable[..., Any] | None = None,
    **options: Any,
) -> PythonEnv:
    """An environment of Gymnasium's `source`: a registered id, a class, or a function that makes one.

    Args:
        actions: their names, in the order of a discrete space, or each with its value; by default numbers for a discrete
            space, the text itself for one of texts, else JSON.
        observe: what the policy sees, a function of (environment, observation).
        prompt: what it is told of the game; the actions are added to it.
        tasks: rows; each may have a `seed` and `options` for reset. By default as many as `n` says (60), by their seeds.
        options: for making it.
    """
    game = _game(_maker(source, options), actions, observe)
    if inspect.isclass(source):
        game.__module__ = source.__module__
    game.__name__ = game.__qualname__ = name or (source if isinstance(source, str) else source.__name__)
    game.__doc__ = inspect.getdoc(source) if inspect.isclass(source) else f"{game.__name__}, played in text."
    if tasks is None:
        tasks = _episodes(game, prompt or f"You play {game.__name__}.")
    return PythonEnv(game, tasks=tasks, name=name, prompt=prompt, solve=solve)


def is_gymnasium(found: type) -> bool:
    """Whether a class is one of Gymnasium's own kind."""
    return any(f"{base.__module__}.".startswith(("gymnasium.", "gym.")) for base in found.__mro__)


def _game(make: Callable[[], Any], actions: Actions | None, observe: Callable[[Any, Any], Any] | None) -> type:
    class Game:
        def __init__(self) -> None:
            self.game = make()
            self.read = _reader(self.game, actions)
            self.seen: str | None = None

        def reset(self, seed: int, options: Any = None) -> str | None:
            given = _accepted(self.game.reset, {"seed": seed, "options": options})
            found = self.game.reset(**given)
            if isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping):
                found = found[0]
            return self._shown(found)

        def step(self, action: str) -> Any:
            try:
                value = self.read(action)
            except ValueError as error:
                return Step(f"That is no action: {error}. {self.seen or ''}".strip())
            try:
                found = self.game.step(value)
            except ValueError as error:  # of the game, not of the policy: the action is in the space
                raise VerifierFault(f"{type(self.game).__name__}.step({value!r:.100}): {short(error)}") from error
            if isinstance(found, tuple) and len(found) == 4:  # gym's, before truncation had a flag of its own
                found = (*found[:3], False, found[3])
            observation, *rest = found if isinstance(found, tuple) else (found, 0.0, False)
            return as_step((self._shown(observation), *rest))

        def close(self) -> None:
            if hasattr(self.game, "close"):
                self.game.close()

        def _shown(self, observation: Any) -> str | None:
            self.seen = _text(self.game, observation, observe)
            return self.seen

    return Game


def _maker(source: str | Callable[..., Any], options: dict[str, Any]) -> Callable[[], Any]:
    if not isinstance(source, str):
        return lambda: source(**options)

    def make() -> Any:
        try:
            gymnasium = import_module("gymnasium")
        except ModuleNotFoundError as error:
            raise UserError(f"{source} needs the package gymnasium: pip install gymnasium") from error
        try:
            found = gymnasium.make(source, **options)
            modes = found.metadata.get("render_modes") or ()
            if "ansi" in modes and "render_mode" not in options:
                found.close()
                found = gymnasium.make(source, render_mode="ansi", **options)
        except (gymnasium.error.Error, ImportError, TypeError) as error:
            raise UserError(f"gymnasium cannot make {source}: {short(error)}") from error
        return found

    return make


def _episodes(game: type, prompt: str) -> Callable[..., Iterator[Json]]:
    def tasks(n: int = 60, seed: int = 0) -> Iterator[Json]:
        one = game()
        try:
            told = one.read.__doc__
        finally:
            one.close()
        for place in range(n):
            yield {"prompt": f"{prompt}\n{told}", "seed": 1000 * seed + place}

    return tasks


def _reader(game: Any, actions: Actions | None) -> Callable[[str], Any]:
    """What makes an action of a text. Its docstring is for the policy; it raises `ValueError` for what is none."""
    space = getattr(game, "action_space", None)
    start = int(getattr(space, "start", 0)) if _discrete(space) else 0
    if actions is not None:
        values = dict(actions) if isinstance(actions, Mapping) else {name: start + i for i, name in enumerate(actions)}
    elif _discrete(space):
        values = {str(start + i): start + i for i in range(int(space.n))}  # type: ignore[union-attr]
    else:
        values = {}
    told = ", ".join(values)

    def named(text: str) -> Any:
        name = chosen_action(text, values)
        if name is None:
            raise ValueError(f"say one of {told}, as in <action>{next(iter(values))}</action>")
        return values[name]

    def read(text: str) -> Any:
        said = action_text(text)
        if space is None or type(space).__name__ == "Text":
            return said
        try:
            value = space.from_jsonable([loads(said)])
            value = value[0] if isinstance(value, (list, tuple)) else value
            fits = bool(space.contains(value))
        except Exception as error:  # noqa: BLE001 - spaces raise what they like on JSON that does not fit
            raise ValueError(f"{short(error)}; say JSON for {space}") from None
        if not fits:
            raise ValueError(f"{said[:200]} is not in {space}")
        return value

    if values:
        named.__doc__ = f"Answer with one action: {', '.join(f'<action>{name}</action>' for name in values)}."
        return named
    kind = "" if space is None or type(space).__name__ == "Text" else f" as JSON, one of {space}"
    read.__doc__ = f"Answer with your action{kind}: <action>...</action>."
    return read


def _discrete(space: Any) -> bool:
    return hasattr(space, "n") and not hasattr(space, "nvec") and getattr(space, "shape", ()) == ()


def _accepted(function: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters
    everything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return {name: value for name, value in given.items() if everything or name in parameters}


def _text(game: Any, observation: Any, observe: Callable[[Any, Any], Any] | None) -> str | None:
    if observe is not None:
        observation = observe(game, observation)
    elif getattr(game, "render_mode", None) == "ansi":
        observation = game.render()
    if observation is None:
        return None
    # A colour may be all that says where one stands.
    return _ESCAPE.sub("", _MARKED.sub(r"[\1]", result_text(observation))).strip("\n")


_MARKED = re.compile(r"\x1b\[[1-9][0-9;]{0,20}m([^\x1b]{0,80})\x1b\[0?m")
_ESCAPE = re.compile(r"\x1b\[[0-9;]{0,20}[A-Za-z]")
