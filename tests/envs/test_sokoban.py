"""Sokoban: the moves, the rewards, levels that can be solved, and boards that a prompt shows."""

from __future__ import annotations

from typing import Any

import pytest

from rollforge.envs.sokoban import sokoban
from rollforge.envs.sokoban.board import MOVES, board_in, read_board, shortest
from rollforge.envs.sokoban.levels import level
from rollforge.errors import VerifierFault
from rollforge.records.items import assistant, user
from tests.envs.drive import task, tasks_of

BOARD = ["######", "#PXO_#", "#____#", "#_XO_#", "######"]


async def play(replies: list[str], **row: Any) -> tuple[Any, list[Any]]:
    async with sokoban.open(task(**{"board": BOARD, **row})) as session:
        steps = [await session.step({"output": [assistant(reply)]}) for reply in replies]
        return await session.verify({"output": []}), steps


@pytest.mark.parametrize(
    ("before", "move", "after"),
    [
        ("#PX_#O", "Right", "#_PX#O"),
        ("#PXO#", "Right", "#_P√#"),
        ("#P√_#O", "Right", "#_SX#O"),
        ("#PX#O", "Right", "#PX#O"),
        ("#PXXO_#O", "Right", "#PXXO_#O"),
        ("#PO_X#", "Right", "#_S_X#"),
        ("#SOX_#", "Left", "#SOX_#"),
        ("#_SX_#", "Left", "#POX_#"),
        ("PX_O", "Up", "PX_O"),  # beyond the edge is a wall
    ],
)
def test_moves(before: str, move: str, after: str) -> None:
    assert read_board([before]).moved(move).text() == after


@pytest.mark.parametrize(
    ("moves", "reward", "solved"),
    [
        ("Right", 1 - 0.1, 0.0),
        ("Right Left", 1 - 0.2, 0.0),
        ("Up", -0.1, 0.0),
        ("", 0.0, 0.0),
        ("Down Down Right Right", -0.4, 0.0),
        ("hm Right", 1 - 0.2, 0.0),
    ],
)
async def test_rewards_as_nemo_gym_has_them(moves: str, reward: float, solved: float) -> None:
    found, _ = await play(moves.split())
    assert (found.reward, found.fields["solved"]) == (pytest.approx(reward), solved)


async def test_the_last_box_ends_it() -> None:
    moves = shortest(read_board(BOARD))
    assert moves is not None
    by_moves, steps = await play(list(moves))
    assert by_moves.reward == pytest.approx(2 + 10 - 0.1 * len(moves))
    assert [step.terminated for step in steps] == [*[False] * (len(moves) - 1), True]
    assert (await play(list(moves), scoring="solved"))[0].reward == 1.0
    assert (await play(list(moves[:-1]), scoring="solved"))[0].reward == 0.0


async def test_a_box_that_leaves_its_target_costs_what_it_gave() -> None:
    board = ["######", "#PXO_#", "#X__O#", "######"]
    found, _ = await play(["Right", "Right"], board=board)
    assert found.reward == pytest.approx(1 - 1 - 0.2)


async def test_what_is_no_move_is_told_and_steps_are_limited() -> None:
    found, steps = await play(["Up or Down?", "<action>Jump</action>", "Up", "Right"], max_steps=3)
    assert [step.observation[:16] for step in steps[:2]] == ["That is no move."] * 2
    assert (steps[2].truncated, steps[2].observation) == (True, None)
    assert found.fields == {
        "steps": 3,
        "terminated": False,
        "truncated": True,
        "solved": 0.0,
        "moves": 1,
        "invalid_actions": 2,
        "boxes_on_targets": 0,
    }


@pytest.mark.parametrize("reply", ["<action>right</action>", "4", "<action>4</action>", "I push it.\nRight.", "RIGHT"])
async def test_how_a_move_may_be_said(reply: str) -> None:
    found, _ = await play([reply])
    assert found.fields["boxes_on_targets"] == 1


async def test_rows_of_nemo_gym_are_levels_of_their_numbers() -> None:
    row: dict[str, Any] = {"level_id": 1, "seed": 84810, "dim_room": [6, 7], "num_boxes": 2, "board": None}
    seen = set()
    for seed in (84810, 84810, 5):
        async with sokoban.open(task(**{**row, "seed": seed})) as session:
            seen.add(session.observation)
    assert len(seen) == 2
    board = board_in(seen.pop() or "")
    assert board is not None
    lines = board.split("\n")
    assert ([len(line) for line in lines], board.count("X"), board.count("O")) == ([7] * 6, 2, 2)
    moves = sokoban.solve(task(**row))
    assert moves is not None
    found, _ = await play([str(move) for move in moves], **row)
    assert found.fields["solved"] == 1.0
    assert found.reward > 10


async def test_a_stored_prompt_shows_its_board() -> None:
    prompt = [user("Solve it."), user("Sokoban board:\n#####\n#PXO#\n#####\n\nLegend: #=wall, _=floor.")]
    async with sokoban.open(task(prompt=prompt, seed=1, dim_room=[9, 9], num_boxes=4)) as session:
        assert session.observation is None
        step = await session.step({"output": [assistant("Right")]})
        assert step.terminated


def test_the_board_of_a_text() -> None:
    assert board_in("# a heading\n## another\n\n###\n#P#\n###\ntext\n####\n#XO#\n#S_#\n####") == "####\n#XO#\n#S_#\n####"
    assert board_in("# Title\nno board\n#\n") is None


@pytest.mark.parametrize("size", [(3, 8, 1), (5, 5, 1), (5, 9, 2), (8, 8, 3), (10, 10, 4)])
def test_levels_are_solved_in_few_moves_and_the_search_finds_the_fewest(size: tuple[int, int, int]) -> None:
    for seed in range(12):
        board = level(seed, *size)
        moves = shortest(board)
        assert moves is not None
        assert len(moves) <= 15
        assert not board.home
        for move in moves:
            board = board.moved(move)
        assert board.solved


def test_tasks_are_as_far_as_their_level_says() -> None:
    for one in tasks_of(sokoban, n=60):
        moves = sokoban.solve(one)
        assert moves is not None
        least, most = {"easy": (3, 6), "medium": (6, 11), "hard": (9, 15)}[one.fields["level"]]
        assert least <= len(list(moves)) <= most


def test_a_board_that_cannot_be_solved_has_no_reference() -> None:
    assert shortest(read_board(["#####", "#X_O#", "#P__#", "#####"])) is None
    assert sokoban.solve(task(board=["####", "#XP#", "#_O#", "####"])) is None


@pytest.mark.parametrize(
    "row",
    [
        {"board": ["#####", "#PXO?", "#####"]},
        {"board": ["#PPXO#"]},
        {"board": ["#XO#"]},
        {"board": ["#PX#"]},
        {"board": None, "dim_room": [6], "seed": 1},
        {"board": None, "dim_room": "66", "seed": 1},
        {"board": None, "dim_room": [3, 3], "seed": 1},
        {"board": None, "dim_room": [1000, 1000], "seed": 1},
        {"board": None, "seed": "x"},
        {"scoring": "best"},
    ],
)
async def test_rows_that_cannot_be_played(row: dict[str, Any]) -> None:
    with pytest.raises(VerifierFault):
        async with sokoban.open(task(**{"board": BOARD, **row})):
            pass


def test_the_moves_are_named_in_the_order_of_their_numbers() -> None:
    assert list(MOVES) == ["Up", "Down", "Left", "Right"]
