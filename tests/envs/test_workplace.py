"""The workplace environment: 27 tools over a company's data; the reward is the state it is left in."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from rollforge.envs.base import Session, ToolCall, Verdict
from rollforge.envs.workplace import DATA, workplace
from rollforge.envs.workplace.company import PEOPLE, company
from rollforge.errors import VerifierFault
from rollforge.records.items import assistant, function_call, function_call_output
from rollforge.records.task import Task
from tests.envs.drive import Call, attempt, solved, task, tasks_of


def truth(*calls: Call) -> list[dict[str, str]]:
    return [{"name": name, "arguments": json.dumps(arguments)} for name, arguments in calls]


def update(what: str, id: str, field: str, value: str) -> Call:
    names = {"event": "calendar_update_event", "task": "project_management_update_task"}
    return names.get(what, "customer_relationship_manager_update_customer"), {
        f"{what}_id": id,
        "field": field,
        "new_value": value,
    }


def delete(id: str) -> Call:
    return "email_delete_email", {"email_id": id}


def mail(subject: str, body: str = "Thanks") -> Call:
    return "email_send_email", {"recipient": "amara.okafor@larkfield.example", "subject": subject, "body": body}


def plot(kind: str) -> Call:
    times = {"time_min": "2025-03-01", "time_max": "2025-03-02"}
    return "analytics_create_plot", {**times, "value_to_plot": "total_visits", "plot_type": kind}


async def said(session: Session, name: str, /, **arguments: Any) -> Any:
    answer = await session.call(ToolCall(name, arguments))
    found = json.loads(answer.text)
    assert answer.error == ("error" in found)
    return found.get("output", found.get("error"))


CUSTOMER = next(id for id, row in company(0).tables["customers"].items() if row["status"] == "Lead")
EVENT = next(iter(company(0).tables["events"]))
WANTED = [update("customer", CUSTOMER, "status", "Won"), mail("Lunch?"), plot("bar"), delete("00000007")]
ROW = task(company=0, ground_truth=truth(*WANTED))


@pytest.mark.parametrize(
    ("calls", "reward"),
    [
        (WANTED, 1),
        # Neither the order, nor looking things up, nor letter case and spaces of a text, nor a way round.
        (WANTED[::-1], 1),
        ([("email_search_emails", {}), *WANTED, ("calendar_search_events", {"query": "a"})], 1),
        ([*WANTED[:1], mail("lunch?", " THANKS"), *WANTED[2:]], 1),
        ([update("customer", CUSTOMER, "status", "Lost"), *WANTED], 1),
        ([*WANTED, update("event", EVENT, "event_name", company(0).tables["events"][EVENT]["event_name"].upper())], 1),
        # What is refused changes nothing.
        ([*WANTED, delete("00000007"), delete("99999999"), mail("", ""), update("task", "1", "board", "x")], 1),
        # Wrong.
        ([], 0),
        (WANTED[:-1], 0),
        ([*WANTED[:-1], delete("00000008")], 0),
        ([*WANTED, WANTED[1]], 0),
        ([*WANTED, WANTED[2]], 0),
        ([*WANTED, delete("00000008")], 0),
        ([*WANTED[:1], mail("Lunch"), *WANTED[2:]], 0),
        ([*WANTED[:2], plot("line"), WANTED[3]], 0),
        ([update("customer", CUSTOMER, "status", "won"), *WANTED[1:]], 0),
        ([*WANTED, update("event", EVENT, "duration", "1")], 0),
        # Adversarial: what is no tool does nothing.
        ([("reset", {"company": 0}), ("verify", {}), ("_update", {}), ("store", {}), ("_after", {"calls": WANTED})], 0),
    ],
)
async def test_the_reward_is_the_state_that_is_left(calls: list[Call], reward: float) -> None:
    found = await attempt(workplace, ROW, "Done.", calls)
    assert found.reward == reward
    assert (found.fields["changes_missing"] == found.fields["changes_extra"] == 0) == bool(reward)


async def test_what_is_missing_and_what_is_too_much_is_counted() -> None:
    found = await attempt(workplace, ROW, "Done.", [*WANTED[:3], delete("00000001"), delete("00000002")])
    assert found.fields == {"changes_right": 3, "changes_missing": 1, "changes_extra": 2}


async def test_a_new_row_can_be_changed_and_deleted_like_any_other() -> None:
    event = {"event_name": "A", "participant_email": "x@y.z", "duration": "30"}
    there = ("calendar_create_event", {**event, "event_start": "2025-03-21T09:00:00", "duration": "030"})
    async with workplace.open(task(company=0, ground_truth=truth(there))) as session:
        gone, id = [await said(session, "calendar_create_event", **event, event_start="2025-03-20 10:00") for _ in range(2)]
        assert int(id) == int(gone) + 1 == len(company(0).tables["events"]) + 1
        assert await said(session, "calendar_delete_event", event_id=gone) == "Event deleted successfully."
        assert "not found" in await said(session, "calendar_delete_event", event_id=gone)
        moved = {"event_id": id, "field": "event_start", "new_value": "2025-03-21 09:00:00"}
        assert await said(session, "calendar_update_event", **moved) == "Event updated successfully."
        found = await said(session, "calendar_get_event_information_by_id", event_id=id, field="event_start")
        assert found == {"event_start": "2025-03-21 09:00:00"}
        assert (await session.verify({"output": [assistant("")]})).reward == 1


async def test_search() -> None:
    async with workplace.open(ROW) as session:
        emails = company(0).tables["emails"].values()
        found = await said(session, "email_search_emails", query="BRUNO photo", page_size=500)
        texts = [(row, f"{row['subject']} {row['body']} {row['sender/recipient']}".lower()) for row in emails]
        assert found["emails"] == sorted(
            (row for row, text in texts if "bruno" in text and "photo" in text),
            key=lambda row: row["sent_datetime"],
            reverse=True,
        )
        one = await said(
            session, "email_search_emails", query="status", date_min="2025-03-01", date_max="2025-03-03", page=99
        )
        numbers = one["pagination"]
        assert (numbers["page"], numbers["page_size"]) == (numbers["total_pages"], 5)
        assert numbers["total_emails"] == 5 * (numbers["page"] - 1) + len(one["emails"])
        assert {"2025-03-01", "2025-03-02", "2025-03-03"} >= {row["sent_datetime"][:10] for row in one["emails"]}
        assert await said(session, "email_search_emails", query="no such words") == "No emails found."
        # Nulls are what was left out.
        assert (await said(session, "email_search_emails", query=None, page=None))["pagination"]["total_emails"] == len(
            emails
        )
        day = await said(
            session, "calendar_search_events", time_min="2025-03-14", time_max="2025-03-14 23:59:59", page_size=30
        )
        starts = [row["event_start"] for row in day["events"]]
        assert starts == sorted(starts, reverse=True)
        assert {start[:10] for start in starts} == {"2025-03-14"}
        tasks = await said(
            session, "project_management_search_tasks", board="design", list_name="backlog", task_name="REFACTOR"
        )
        assert {(row["board"], row["list_name"], row["task_name"][:8]) for row in tasks} == {
            ("Design", "Backlog", "Refactor")
        }
        limits = {"last_contact_date_max": "2025-02-20", "follow_up_by_min": "2025-03-20", "page_size": 200}
        customers = await said(session, "customer_relationship_manager_search_customers", status="won", **limits)
        for row in customers["customers"]:
            assert (row["status"], row["last_contact_date"] <= "2025-02-20" < "2025-03-20" <= row["follow_up_by"]) == (
                "Won",
                True,
            )
        assert await said(session, "company_directory_find_email_address", name="sunniva") == [
            "sunniva.berg@larkfield.example"
        ]


async def test_analytics() -> None:
    times = {"time_min": "2025-03-01", "time_max": "2025-03-03"}
    visits = [row for row in company(0).visits if times["time_min"] <= row["date_of_visit"] <= times["time_max"]]
    days = sorted({row["date_of_visit"] for row in visits})
    async with workplace.open(ROW) as session:
        total = await said(session, "analytics_total_visits_count", **times)
        assert list(total) == days
        assert sum(total.values()) == len(visits)
        engaged = await said(session, "analytics_engaged_users_count", **times)
        assert sum(engaged.values()) == sum(row["user_engaged"] for row in visits)
        direct = await said(session, "analytics_traffic_source_count", **times, traffic_source="direct")
        assert sum(direct.values()) == sum(row["traffic_source"] == "direct" for row in visits)
        assert await said(session, "analytics_traffic_source_count", **times) == total
        mean = await said(session, "analytics_get_average_session_duration", **times)
        first = [float(row["session_duration_seconds"]) for row in visits if row["date_of_visit"] == days[0]]
        assert mean[days[0]] == pytest.approx(sum(first) / len(first))
        visitor = visits[0]["visitor_id"]
        assert await said(session, "analytics_get_visitor_information_by_id", visitor_id=visitor) == [visits[0]]


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("email_send_email", {"recipient": "nobody", "subject": "a", "body": "b"}, "no e-mail address"),
        ("email_send_email", {"recipient": "a@b.c", "subject": "a", "body": "  "}, "body is empty"),
        ("email_reply_email", {"email_id": "x", "body": "b"}, "Email not found"),
        ("email_get_email_information_by_id", {"email_id": "00000001", "field": "spam"}, "sender/recipient"),
        ("email_search_emails", {"date_min": "yesterday"}, "YYYY-MM-DD"),
        ("calendar_update_event", {"event_id": EVENT, "field": "event_id", "new_value": "1"}, "cannot be set"),
        ("calendar_update_event", {"event_id": EVENT, "field": "duration", "new_value": "٣"}, "number of minutes"),
        ("calendar_update_event", {"event_id": EVENT, "field": "event_start", "new_value": "soon"}, "YYYY-MM-DD"),
        ("calendar_update_event", {"event_id": EVENT, "field": "event_name", "new_value": ""}, "empty"),
        ("analytics_create_plot", {**plot("bar")[1], "plot_type": "pie"}, "histogram"),
        ("analytics_create_plot", {**plot("bar")[1], "value_to_plot": "x" * 9999}, "visits_direct"),
        ("analytics_get_visitor_information_by_id", {"visitor_id": "x"}, "not found"),
        ("project_management_search_tasks", {}, "at least one"),
        ("customer_relationship_manager_search_customers", {"page": 2}, "at least one"),
        (
            "project_management_update_task",
            {"task_id": "00000001", "field": "assigned_to_email", "new_value": "a@b.c"},
            "the team",
        ),
        ("project_management_update_task", {"task_id": "00000001", "field": "list_name", "new_value": "Done"}, "In Review"),
        (
            "customer_relationship_manager_update_customer",
            {"customer_id": CUSTOMER, "field": "status", "new_value": "VIP"},
            "Lead",
        ),
        (
            "customer_relationship_manager_add_customer",
            {"customer_name": "A", "assigned_to_email": "b", "status": "new"},
            "Lead",
        ),
        ("calendar_create_event", {"event_name": "A"}, "participant_email"),
        ("email_delete_email", {"email_id": 7}, "string"),
    ],
)
async def test_what_cannot_be_done_is_said(name: str, arguments: dict[str, Any], why: str) -> None:
    async with workplace.open(task(company=0, ground_truth=[])) as session:
        assert why in await said(session, name, **arguments)
        assert (await session.verify({"output": []})).reward == 1


@pytest.mark.parametrize(
    "row",
    [
        {"company": 0},
        {"company": "0", "ground_truth": []},
        {"company": True, "ground_truth": []},
        {"company": 0, "ground_truth": "reply to Amara"},
        {"company": 0, "ground_truth": [{"name": "email_delete_email"}]},
        {"company": 0, "ground_truth": [{"name": "email_delete_email", "arguments": "{"}]},
        {"company": 0, "ground_truth": [{"name": "email_delete_email", "arguments": "[]"}]},
        {"company": 0, "ground_truth": truth(("email_shred_email", {}))},
        {"company": 0, "ground_truth": truth(delete("99999999"))},
        {"company": 0, "ground_truth": truth(plot("pie"))},
    ],
)
async def test_a_row_that_nobody_can_answer_is_a_fault(row: dict[str, Any]) -> None:
    with pytest.raises(VerifierFault):
        await attempt(workplace, task(**row), "Done.")


async def test_ground_truth_may_be_text_and_its_arguments_objects() -> None:
    for given in (json.dumps(truth(*WANTED)), [{"name": name, "arguments": arguments} for name, arguments in WANTED]):
        assert (await attempt(workplace, task(company=0, ground_truth=given), "", WANTED)).reward == 1


# Rows of NeMo Gym.

THEIRS = task(id=1, category="workplace_assistant_email", ground_truth=truth(delete("00000057")))


def stored(*calls: Call, output: str = '{"output":"ok"}') -> Any:
    """An attempt of which only the record is left."""
    items = []
    for place, (name, arguments) in enumerate(calls):
        items += [function_call(name, json.dumps(arguments), f"c{place}"), function_call_output(f"c{place}", output)]
    return {"output": [*items, assistant("Done.")]}


async def judged(row: Task, response: Any) -> Verdict:
    async with workplace.open(row) as session:
        return await session.verify(response)


async def test_without_the_data_of_a_row_its_tools_cannot_answer_and_nobody_gets_a_zero_for_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(DATA, raising=False)
    async with workplace.open(THEIRS) as session:
        with pytest.raises(VerifierFault, match=DATA):
            await session.call(ToolCall("email_search_emails", {"query": "Carlos"}))


async def test_without_the_data_of_a_row_a_stored_attempt_is_judged_by_what_its_calls_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(DATA, raising=False)
    look = ("email_search_emails", {"query": "carlos", "page": None})
    assert (await judged(THEIRS, stored(look, delete("00000057")))).reward == 1
    assert (await judged(THEIRS, stored(look, delete("00000058")))).reward == 0
    assert (await judged(THEIRS, stored(delete("00000057"), delete("00000058")))).reward == 0
    assert (await judged(THEIRS, stored())).reward == 0
    # What was refused, or never answered, or is no JSON did not happen.
    assert (await judged(THEIRS, stored(delete("00000057"), output='{"error":"no"}'))).reward == 0
    assert (await judged(THEIRS, {"output": stored(delete("00000057"))["output"][:1]})).reward == 0
    assert (
        await judged(THEIRS, {"output": [function_call("email_delete_email", "{", "c"), function_call_output("c", "ok")]})
    ).reward == 0
    change = update("customer", "00000095", "assigned_to_email", "raj.patel@atlas.com")
    row = task(ground_truth=truth(change, update("task", "00000001", "assigned_to_email", "raj.patel@atlas.com")))
    both = stored(change, update("customer", "00000095", "assigned_to_email", "RAJ.patel@atlas.com"))
    assert (await judged(row, both)).fields == {"changes_right": 1, "changes_missing": 1, "changes_extra": 0}


async def test_a_stored_attempt_of_our_own_is_judged_on_the_data() -> None:
    assert (await judged(ROW, stored(*WANTED, delete("99999999")))).reward == 1
    assert (await judged(ROW, stored(*WANTED[1:]))).reward == 0


def write_company(folder: Path) -> None:
    (folder / "processed").mkdir()
    (folder / "raw").mkdir()
    (folder / "raw/email_addresses.csv").write_text("carlos.diaz@there.example\n")
    files = {
        "emails": "email_id,inbox/outbox,sender/recipient,subject,sent_datetime,body\n"
        '00000056,inbox,carlos.diaz@there.example,Plan,2023-11-28 10:00:00,"Hi,\nall well"\n'
        "00000057,inbox,carlos.diaz@there.example,Plan,2023-11-29 10:00:00,News\n",
        "calendar_events": "event_id,event_name,participant_email,event_start,duration\n",
        "project_tasks": "task_id,task_name,assigned_to_email,list_name,due_date,board\n",
        "customer_relationship_manager_data": "customer_id,assigned_to_email,customer_name,customer_email,customer_phone,"
        "last_contact_date,product_interest,status,follow_up_by,notes\n"
        "00000003,carlos.diaz@there.example,Jo Day,jo@x.example,,2023-11-30 23:59:00,Software,Lead,2023-12-01 23:59:00,\n",
        "analytics_data": "date_of_visit,visitor_id,page_views,session_duration_seconds,traffic_source,user_engaged\n"
        "2023-10-22,0860,8,4,referral,False\n2023-10-22,0861,8,6,direct,True\n",
    }
    for name, text in files.items():
        (folder / f"processed/{name}.csv").write_text(text)


async def test_with_the_data_of_a_row_it_is_played_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_company(tmp_path)
    monkeypatch.setenv(DATA, str(tmp_path))
    async with workplace.open(THEIRS) as session:
        found = await said(session, "email_search_emails", query="carlos")
        assert [row["email_id"] for row in found["emails"]] == ["00000057", "00000056"]
        assert found["emails"][1]["body"] == "Hi,\nall well"
        assert await said(session, "analytics_engaged_users_count") == {"2023-10-22": 1}
        added = {"customer_name": "A", "assigned_to_email": "B@c.d", "status": "Lead"}
        assert await said(session, "customer_relationship_manager_add_customer", **added) == "00000004"
        await said(session, "customer_relationship_manager_delete_customer", customer_id="00000004")
        found = await said(session, "customer_relationship_manager_search_customers", customer_name="jo")
        assert found["customers"][0]["customer_phone"] is None
        await said(session, "email_delete_email", email_id="00000057")
        assert (await session.verify({"output": [assistant("")]})).reward == 1


async def test_data_that_cannot_be_read_are_a_fault_of_nobody_but_the_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATA, str(tmp_path))
    with pytest.raises(VerifierFault, match="cannot be read"):
        await attempt(workplace, THEIRS)
    write_company(tmp_path)
    tasks = tmp_path / "processed/project_tasks.csv"
    tasks.write_text(f"{tasks.read_text()}seven,Plan,a@b.c,Backlog,2023-12-01,Design\n")
    with pytest.raises(VerifierFault, match="seven"):
        await attempt(workplace, THEIRS)
    (tmp_path / "processed/emails.csv").write_text("id,text\n1,x\n")
    with pytest.raises(VerifierFault, match=r"emails\.csv"):
        await attempt(workplace, THEIRS)


# Its own tasks.


async def test_the_reference_uses_nothing_that_it_has_not_read() -> None:
    tasks = tasks_of(workplace, n=250)
    kinds = {one.fields["kind"] for one in tasks}
    assert len(kinds) == 13
    assert {(one.fields["kind"], one.fields["level"]) for one in tasks} == {
        (kind, level) for kind in kinds for level in ("easy", "medium", "hard")
    }
    for one in tasks:
        assert (await solved(workplace, one)).reward == 1
        assert (await attempt(workplace, one, "Done.")).reward == 0
        async with workplace.open(one) as session:
            solution = workplace.solve(one)
            read, call = "", next(solution)
            try:
                while True:
                    used = [value for name, value in call[1].items() if name.endswith("_id") or "@" in str(value)]
                    assert all(value in read for value in used), call
                    answer = await session.call(ToolCall(*call))
                    assert not answer.error
                    read += answer.text
                    call = solution.send(answer.text)
            except StopIteration:
                pass


async def test_each_step_of_the_reference_counts() -> None:
    for one in tasks_of(workplace, n=60):
        calls = [(call["name"], json.loads(call["arguments"])) for call in one.fields["ground_truth"]]
        changing = [
            place for place, (name, _) in enumerate(calls) if not any(word in name for word in ("search", "find", "count"))
        ]
        for place in changing:
            assert (await attempt(workplace, one, "Done.", calls[:place] + calls[place + 1 :])).reward in (
                0,
                float(_idle(one, calls[place])),
            )


def _idle(one: Task, call: Call) -> bool:
    """Whether the call sets what is already so (a follow-up date may happen to be)."""
    rows = company(one.fields["company"]).tables["customers"]
    row = rows.get(call[1].get("customer_id", ""), {})
    return bool(row) and row.get(call[1].get("field", "")) == call[1].get("new_value")


def test_a_first_name_says_who_is_meant() -> None:
    addresses = company(3).directory
    for name in PEOPLE:
        first = name.split()[0].lower()
        assert [address for address in addresses if first in address] == [
            f"{'.'.join(name.lower().split())}@larkfield.example"
        ]


async def test_a_thousand_sessions_share_the_data_and_nothing_else() -> None:
    async def live(place: int) -> float:
        calls = WANTED if place % 2 else [*WANTED, delete(f"{place % 300 + 20:08d}")]
        async with workplace.open(ROW) as session:
            for call in calls:
                await session.call(ToolCall(*call))
                await asyncio.sleep(0)
            return (await session.verify({"output": []})).reward

    assert await asyncio.gather(*map(live, range(1000))) == [place % 2 for place in range(1000)]
    emails = company(0).tables["emails"]
    assert len(emails) == 420
    assert company(0) is company(0)
