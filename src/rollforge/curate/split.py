"""The split step: every row gets `split`: train, validation or test, by what its prompt asks and near duplicates of it.

The hash of a prompt (with the seed) says on which side it is, so more data move no prompt that has no near duplicates; near
duplicates go where the one with the smallest digest goes. `docs/design/curation.md` states what is guaranteed, and why more
cannot be. What is reported is counted over the result.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from rollforge.bulk.asked import asked_of
from rollforge.bulk.blocks import Unusable, blocks, line_number, records
from rollforge.bulk.record import digest
from rollforge.config import Section
from rollforge.curate.distinct import Distinct, Signatures
from rollforge.curate.near import HASHES, THRESHOLD, WORDS, clusters, signature_fact, signature_of
from rollforge.curate.report import ENVIRONMENTS
from rollforge.curate.step import Drop, Fact, Sample, Step, Workspace, complete
from rollforge.curate.write import MANIFEST
from rollforge.errors import UserError
from rollforge.records.items import Json
from rollforge.records.lossless import loads
from rollforge.stats.source import SPLITS
from rollforge.stats.text import plural
from rollforge.stats.visible import capped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BIT = {side: 1 << number for number, side in enumerate(SPLITS)}
_NEW = -1
"""No side yet."""
_ASKED = "asked, to the user turn"
_NAMED = 5

FEW = 10
"""Prompts of a split under which its figures say little."""
_OFF = 0.1
"""An environment whose share is further from what was asked is named."""


class SplitArgs(Section):
    train: float = 0.9
    """The shares of prompts, as parts of 1 or of 100."""
    validation: float = 0.1
    """What the others leave, where it is not said."""
    test: float = 0.0
    near: float | None = Field(THRESHOLD, ge=0.3, le=1)
    """The similarity (see the near step) of the user turns from which prompts stay together; null: only equal prompts do."""
    each_env: bool = True
    """Every environment has a prompt in validation and in test, if it has as many prompts as there are splits. One that has
    none in train is warned of: a prompt put there would have to leave it again when the data grow."""
    previous: str | list[str] | None = None
    """A split made earlier: its directory, or its train.jsonl, validation.jsonl, test.jsonl. Prompts keep their sides, and
    new ones go by its shares unless others are given."""
    keep: bool = True
    """What comes from a directory that is split keeps its sides, too; false splits it anew."""
    seed: int | None = None
    """Another seed, another split; the recipe's unless given."""

    @model_validator(mode="before")
    @classmethod
    def _as_before(cls, values: Any) -> Any:
        """Written out, so that a saved recipe says all."""
        if not isinstance(values, Mapping):
            return values
        if not any(side in values for side in SPLITS):
            return {**shares_before(values.get("previous")), **values}
        others = (values.get("train", 0.9), values.get("test", 0.0))
        if "validation" in values or not all(isinstance(share, (int, float)) for share in others):
            return values
        rest = (100 if max(others) > 1 else 1) - sum(others)
        return {**values, "validation": max(round(rest, 9), 0.0)}

    @classmethod
    def short(cls, value: Any) -> SplitArgs:
        """`90/10`, `80/10/10`, `[0.8, 0.1, 0.1]`."""
        parts = value.split("/") if isinstance(value, str) else value
        if isinstance(parts, (list, tuple)) and len(parts) in (2, 3):
            try:
                train, validation, test = (*map(float, parts), 0.0)[:3]
                return cls(train=train, validation=validation, test=test)
            except (TypeError, ValueError):
                pass
        raise UserError(f"split: {value!r} is not two or three shares (write: split: 90/10, or split: [0.8, 0.1, 0.1])")


def steps(args: SplitArgs) -> list[Step]:
    """Raises `UserError` for shares that cannot be."""
    return [Split(args)]


def shares_of(args: SplitArgs) -> tuple[float, float, float]:
    """Parts of 1 for train, validation, test. Raises `UserError`."""
    given = (args.train, args.validation, args.test)
    said = "/".join(f"{share:g}" for share in given)
    total = sum(given)
    if not all(0 <= share < float("inf") for share in given):
        raise UserError(f"split {said}: a share cannot be negative (write: split: 90/10)")
    if not (abs(total - 1) < 1e-6 or abs(total - 100) < 1e-4):
        raise UserError(f"split {said}: the shares sum to {total:g}, neither 1 nor 100 (write: split: 90/10, or 80/10/10)")
    if not args.train:
        raise UserError(f"split {said}: nothing is left for train (write: split: 90/10)")
    if not (args.validation or args.test):
        raise UserError(f"split {said}: everything is train; leave the split out, or write: split: 90/10")
    return (args.train / total, args.validation / total, args.test / total)


class Split:
    """Memory: about 40 bytes per row, 60 per distinct prompt, and of the signatures those that have near duplicates."""

    name: str
    facts: Mapping[str, Fact]

    def __init__(self, args: SplitArgs) -> None:
        self._shares = shares_of(args)
        self._args = args
        self.name = f"split {'/'.join(f'{share * 100:g}' for share in self._shares if share)}"
        self._fact, self._signature = signature_fact("question", WORDS, HASHES)
        self.facts = {_ASKED: asked_of} if args.near is None else {_ASKED: asked_of, self._fact: self._signature}
        self._previous = previous_files(args.previous)

    def __call__(self, samples: Iterable[Sample], work: Workspace, /) -> Iterator[Sample | Drop]:
        with closing(Signatures(work.folder, HASHES)) as signatures:
            yield from self._steps(samples, work, signatures)

    def _steps(self, samples: Iterable[Sample], work: Workspace, signatures: Signatures) -> Iterator[Sample]:
        import numpy as np

        rows = Distinct(places=False)
        was = array("b")
        for side, file in self._previous:
            for _ in rows.watch(self._read(file), lambda sample: self._take(sample, len(rows), signatures)):
                was.append(side)
        before = len(rows)
        envs: dict[str, int] = {}
        env_of = array("i")

        def take(sample: Sample) -> bytes:
            env_of.append(envs.setdefault(capped(sample.env, envs, ENVIRONMENTS), len(envs)))
            was.append(SPLITS.index(sample.split) if self._args.keep and sample.split else _NEW)
            return self._take(sample, len(rows), signatures)

        with closing(work.keep(rows.watch(samples, take))) as kept:
            numbers, digests = rows.numbers()
            count = len(digests)
            roots = np.arange(count, dtype=np.int32)
            if self._args.near is not None:
                signatures.settle(numbers, count)
                roots = clusters(signatures, self._args.near)
            # Counted is a prompt of several environments for the first by name: the order of the rows decides nothing.
            names = sorted(envs)
            place = {name: number for number, name in enumerate(names)}
            by_name = np.array([place[name] for name in envs], np.int32)
            home = np.full(count, len(names), np.int32)
            of_rows = by_name[np.frombuffer(env_of, np.int32)] if env_of else np.zeros(0, np.int32)
            np.minimum.at(home, numbers[before:], of_rows)
            known = np.array(was, np.int8)
            earlier, clashes = pinned_sides(numbers[:before], known[:before], count)
            own, torn = pinned_sides(numbers[before:], known[before:], count)
            pinned = np.where(earlier >= 0, earlier, own)
            present = np.zeros(count, bool)
            present[numbers[before:]] = True
            holds = np.unique(of_rows * np.int64(count) + roots[numbers[before:]]) if self._args.each_env else None
            work.notes["seed"] = seed = work.seed if self._args.seed is None else self._args.seed
            chance = mixed(digests[:, 0], seed)
            sides, filled = self._sides(chance, roots, holds, pinned)
            self._check(sides[present])
            proof = Proof(count, names, self._shares)
            numbers = numbers[before:]
            for sample, number, side in zip(kept, numbers.data, sides[numbers].data, strict=True):
                sample.split = SPLITS[side]
                proof.count(number, sample)
                yield sample
            proof.report(work, self._args, roots, home, filled, free=not (pinned >= 0).any())
            if self._previous:
                self._tell_of_previous(work, earlier, present, clashes, roots, sides)
            if (own >= 0).any():
                self._tell_of_kept(work, own, self._by_hash(chance)[roots] != sides, torn)

    def _take(self, sample: Sample, row: int, signatures: Signatures) -> bytes:
        asked: bytes = sample.facts[_ASKED]
        if self._args.near is not None:
            signatures.add(row, asked, signature_of(sample.facts[self._fact]))
        return asked

    def _read(self, file: Path) -> Iterator[Sample]:
        """The rows of an earlier split."""
        for block in blocks([file]):
            samples: list[Sample] = []
            for at, record in records(block):
                if isinstance(record, Unusable):
                    if not record.text:
                        continue
                    raise UserError(
                        f"{file}:{line_number(file, at)}: {record.reason}: `previous` reads rollouts as curate writes them, "
                        f"not a trainer's format"
                    )
                facts = {name: fact(record) for name, fact in self.facts.items()}
                samples.append(Sample(-1, at, record.env, b"", record.prompt, 0.0, facts))
            for name, fact in self.facts.items():
                complete(name, fact, samples)
            yield from samples

    def _by_hash(self, chance: Any) -> Any:
        import numpy as np

        return np.searchsorted(np.cumsum(self._shares[:2]), chance, side="right").astype(np.int8)

    def _sides(self, chance: Any, roots: Any, holds: Any, pinned: Any) -> tuple[Any, int]:
        """The side of every prompt, as an index of `SPLITS`; how many clusters went to a split that was empty. `holds`: the
        clusters that each environment has rows of, as environment * prompts + root; None: its splits may be empty."""
        import numpy as np

        sides = self._by_hash(chance)
        # A prompt that was there before decides for its cluster; of several the one nearest to train.
        cluster_pin = np.full(len(roots), len(SPLITS), np.int8)
        known = pinned >= 0
        np.minimum.at(cluster_pin, roots[known], pinned[known])
        free = cluster_pin == len(SPLITS)
        sides = np.where(free, sides, cluster_pin).astype(np.int8)
        filled = 0
        if holds is not None and len(holds):
            envs, clusters = np.divmod(holds, len(roots))
            order = np.lexsort((chance[clusters], envs))
            starts = np.flatnonzero(np.diff(envs[order], prepend=-1))
            owned = [clusters[order[start:end]] for start, end in pairwise((*starts.tolist(), len(order)))]
            start = sides.copy()
            while self._fill(sides, owned, free):  # what one environment gives to test may have been another's validation
                pass
            filled = int((sides != start).sum())
        sides = sides[roots]
        sides[known] = pinned[known]
        return sides, filled

    def _fill(self, sides: Any, owned: Iterable[Any], free: Any) -> bool:
        """An environment's empty split gets the cluster whose hash is the nearest to it, whatever others need, so that it
        stays there when they grow. `owned`: the clusters of each, by their hashes. False if nothing was to be done."""
        import numpy as np

        before = sides.copy()
        wanted = [side for side in (2, 1) if self._shares[side]]
        for own in owned:
            mine = before[own]
            for side in wanted if len(own) > len(wanted) else ():
                lower = np.flatnonzero((mine < side) & free[own])
                if len(lower) and not (mine == side).any():
                    mine[lower[-1]] = side
                    sides[own[lower[-1]]] = max(sides[own[lower[-1]]], side)
        return bool((sides != before).any())

    def _check(self, sides: Any) -> None:
        asked_for = [name for name, share in zip(SPLITS, self._shares, strict=True) if share]
        if not len(sides):
            return
        if len(sides) < len(asked_for):
            raise UserError(
                f"{self.name}: {plural(len(sides), 'prompt')} cannot be split into {' and '.join(asked_for)}; "
                f"leave the split out, or collect more tasks"
            )
        if not (sides == 0).any():
            raise UserError(
                f"{self.name}: none of the {plural(len(sides), 'prompt')} fell to train; more tasks will do, "
                f"or another seed (seed: 1){'' if self._args.near is None else '; near: null parts near duplicates, too'}"
            )

    def _tell_of_kept(self, work: Workspace, own: Any, elsewhere: Any, torn: int) -> None:
        kept = own >= 0
        moved = int((kept & elsewhere).sum())
        work.notes["split already"] = {"prompts": int(kept.sum()), "elsewhere by these shares": moved, "in two splits": torn}
        if moved:
            work.warnings.append(
                f"{plural(int(kept.sum()), 'prompt')} of split directories keep their sides; by these shares and this seed "
                f"{moved:,} would be elsewhere (keep: false splits them anew)"
            )
        if torn:
            work.warnings.append(f"{plural(torn, 'prompt')} came on two sides; the side nearest to train is kept")

    def _tell_of_previous(self, work: Workspace, pinned: Any, present: Any, clashes: int, roots: Any, sides: Any) -> None:
        import numpy as np

        known = pinned >= 0
        lows = np.full(len(roots), len(SPLITS), np.int8)
        highs = np.full(len(roots), -1, np.int8)
        np.minimum.at(lows, roots[known], pinned[known])
        np.maximum.at(highs, roots[known], pinned[known])
        torn = int(((lows < highs) & (highs >= 0)).sum())
        work.notes["previous"] = {
            "prompts": int(known.sum()),
            "of them here": int((known & present).sum()),
            "here and not on their side": int((known & present & (sides != pinned)).sum()),
            "in two of its splits": clashes,
            "near-duplicate clusters in two of its splits": torn,
        }
        if self._args.model_fields_set.isdisjoint(SPLITS):
            work.warnings.append(f"`previous` does not say its shares: new prompts go by those of a plain {self.name}")
        lost = [SPLITS[side] for side in sorted({*pinned[known].tolist()}) if not self._shares[side]]
        if lost:
            work.warnings.append(
                f"`previous` has {' and '.join(lost)}, for which no share is asked: new prompts do not go there"
            )
        if clashes:
            work.warnings.append(
                f"{plural(clashes, 'prompt')} of `previous` {'is' if clashes == 1 else 'are'} in two of its "
                f"splits; the side nearest to train is kept"
            )
        if torn:
            work.warnings.append(
                f"`previous` has {plural(torn, 'cluster')} of near duplicates in two of its splits; its "
                f"prompts keep their sides, new ones go to the side nearest to train (near: null compares equal prompts)"
            )


class Proof:
    """Counts what comes out, independently of how it was decided."""

    def __init__(self, prompts: int, envs: Sequence[str], shares: Sequence[float]) -> None:
        self._on = bytearray(prompts)
        self._envs = {env: dict.fromkeys(SPLITS, 0) for env in envs}
        self._shares = shares

    def count(self, number: int, sample: Sample) -> None:
        assert sample.split is not None
        self._on[number] |= _BIT[sample.split]
        self._envs[capped(sample.env, self._envs, ENVIRONMENTS)][sample.split] += sample.copies

    def report(self, work: Workspace, args: SplitArgs, roots: Any, home: Any, filled: int, free: bool) -> None:
        """Adds to notes and warnings. `home` is the environment that a prompt counts for; `free`: none was on a side before,
        where no seed moves it."""
        import numpy as np

        found = np.frombuffer(self._on, np.uint8)
        seen = found > 0
        total = int(seen.sum())
        rows = {side: sum(env[side] for env in self._envs.values()) for side in SPLITS}
        splits = {}
        by_env: Json = {env: {} for env in self._envs}
        for index, side in enumerate(SPLITS):
            on = (found & (1 << index)) > 0
            count = int(on.sum())
            if not (self._shares[index] or count):
                continue
            got = round(count / total, 4) if total else 0.0
            splits[side] = {"asked": round(self._shares[index], 4), "got": got, "prompts": count, "rows": rows[side]}
            counts = np.bincount(home[on], minlength=len(self._envs) + 1)
            for number, env in enumerate(self._envs):
                by_env[env][side] = {"prompts": int(counts[number]), "rows": self._envs[env][side]}
            if not total:
                continue
            if index == 0 and filled and abs(got - self._shares[0]) > 0.05:
                work.warnings.append(
                    f"train has {got:.0%} of the prompts, not {self._shares[0]:.0%}: small environments have a "
                    f"prompt in every split, too (each_env: false splits them by hash alone)"
                )
            if not count:
                near = "" if args.near is None else ", or near duplicates that must stay together (near: null)"
                work.warnings.append(f"{side} is empty: {plural(total, 'prompt')}, too few for its share{near}")
            elif count < FEW:
                work.warnings.append(
                    f"{side} has {plural(count, 'prompt')}: figures over so few say little; collect more tasks"
                )
        if free:
            work.warnings.extend(self._uneven(by_env))
        across = np.zeros(len(roots), np.uint8)
        np.bitwise_or.at(across, roots, found)
        sizes = np.bincount(roots[seen], minlength=max(len(roots), 1))
        work.notes.update(
            {
                "splits": splits,
                "by_env": by_env,
                "proof": {
                    "prompts": total,
                    "prompts in two splits": int(_several(found).sum()),
                    "near-duplicate clusters": int((sizes > 1).sum()),
                    "largest cluster": int(sizes.max()),
                    "near-duplicate clusters in two splits": int((_several(across) & (sizes[: len(across)] > 1)).sum()),
                },
                "near": args.near,
                "given to an empty split": filled,
            }
        )
        if args.near is not None and sizes.max() >= FEW and sizes.max() > total / 4:
            work.warnings.append(
                f"{sizes.max():,} of {total:,} prompts are near duplicates of one another and stay on one side: "
                f"tasks of one template with other values (near: 0.95 tells more of them apart), or told apart by their "
                f"system turns alone? near: null parts all that are not equal"
            )

    def _uneven(self, by_env: Json) -> Iterator[str]:
        off = []
        totals = {env: sum(count["prompts"] for count in counts.values()) for env, counts in by_env.items()}
        untrained = [env for env, counts in by_env.items() if totals[env] >= len(counts) and not counts["train"]["prompts"]]
        if untrained:
            yield (
                f"{len(untrained):,} of {plural(len(by_env), 'environment')} {'has' if len(untrained) == 1 else 'have'} no "
                f"prompt in train: {_named(untrained)}. Nobody learns {'its' if len(untrained) == 1 else 'their'} tasks; "
                f"collect more of them, or take another seed"
            )
        for env, counts in by_env.items():
            total = totals[env]
            asked = dict(zip(SPLITS, self._shares, strict=True))
            if total < FEW:
                continue
            side = max(counts, key=lambda side: abs(counts[side]["prompts"] / total - asked[side]))
            if abs(counts[side]["prompts"] / total - asked[side]) > _OFF + 1e-9:
                off.append(f"{env} ({side}: {counts[side]['prompts']:,} of {total:,} prompts, asked {asked[side]:.0%})")
        if off:
            yield (
                f"{len(off):,} of {plural(len(by_env), 'environment')} {'is' if len(off) == 1 else 'are'} more than "
                f"{_OFF * 100:g} points from the shares: {_named(off)}. A prompt's hash says on which "
                f"side it is, so that grown data move none; with more tasks, or by another seed, it comes nearer"
            )


def mixed(halves: NDArray[np.uint64], seed: int) -> NDArray[np.float64]:
    """Numbers in [0, 1) from digests and a seed, uniform and independent (the finaliser of splitmix64)."""
    import numpy as np

    key = int.from_bytes(digest(b"rollforge split %d" % seed)[:8], "big")
    mixed = halves ^ np.uint64(key)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    found: NDArray[np.float64] = (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return found


def pinned_sides(numbers: Any, was: Any, count: int) -> tuple[Any, int]:
    """For every prompt the side it had before by the rows' numbers and sides, -1 if it is new; and how many had two."""
    import numpy as np

    low = np.full(count, len(SPLITS), np.int8)
    high = np.full(count, -1, np.int8)
    for side in range(len(SPLITS)):
        own = numbers[was == side]
        low[own] = np.minimum(low[own], side)
        high[own] = np.maximum(high[own], side)
    return np.where(low == len(SPLITS), _NEW, low).astype(np.int8), int((low < high).sum())


def previous_files(given: str | list[str] | None) -> list[tuple[int, Path]]:
    """(side, file) of an earlier split. Raises `UserError` if there is none."""
    found = []
    for name in [given] if isinstance(given, str) else given or []:
        path = Path(name)
        if path.is_dir():
            files = (path / f"{name}.jsonl" for name in SPLITS)
            here = [(side, file) for side, file in enumerate(files) if file.is_file()]
            if not here:
                raise UserError(f"previous: {name} holds no train.jsonl, validation.jsonl or test.jsonl")
            found += here
        elif not path.is_file():
            raise UserError(f"previous: there is no {name}")
        elif path.stem not in SPLITS:
            raise UserError(
                f"previous: {name} says not which split it is; name it train.jsonl, validation.jsonl or test.jsonl"
            )
        else:
            found.append((SPLITS.index(path.stem), path))
    return found


def shares_before(previous: Any) -> Json:
    """The shares that an earlier split was asked for, even if curated since; {} where its directory does not say."""
    names = [previous] if isinstance(previous, str) else previous if isinstance(previous, list) else []
    for path in (Path(name) for name in names if isinstance(name, str)):
        try:
            manifest = loads(((path if path.is_dir() else path.parent) / MANIFEST).read_bytes())
            own = [step["split"] for step in manifest["recipe"]["steps"] if "split" in step]
            return {side: share for side, share in (own[-1] if own else manifest["shares"]).items() if side in SPLITS}
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue
    return {}


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _several(on: Any) -> Any:
    """Where more than one bit is set."""
    return (on & (on - 1)) > 0
