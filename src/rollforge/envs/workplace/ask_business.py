"""Tasks about projects, customers and visits of the web site, and across them."""

from __future__ import annotations

from datetime import date, datetime, timedelta

from rollforge.envs.workplace.ask import (
    Ask,
    Office,
    call,
    day_of,
    find,
    first_name,
    free_slot,
    mail_to,
    said,
    set_field,
)
from rollforge.envs.workplace.company import BOARDS, LISTS, PRODUCTS, STATUSES, TODAY
from rollforge.envs.workplace.words import NEW_FIRST, NEW_LAST, NEW_WORK, NEWS, PLOTTED, TITLES
from rollforge.records.items import Json


def new_task(office: Office, level: int) -> Ask | None:
    like, other = office.rng.sample(office.rows("tasks"), 2)
    name, due = office.rng.choice(NEW_WORK), office.workday()
    row = {"task_name": name, "assigned_to_email": like["assigned_to_email"], "list_name": "Backlog", "board": like["board"]}
    who = first_name(like["assigned_to_email"])
    looks = [find(like["assigned_to_email"])]
    when = f"due on {said(due)}"
    if level == 1:
        weeks = office.rng.randint(1, 4)
        due, when = TODAY + timedelta(7 * weeks), f"due {'a week' if weeks == 1 else f'{weeks} weeks'} from today"
        row["list_name"] = office.rng.choice(("In Progress", "In Review"))
    elif level == 2:
        due, who = date.fromisoformat(other["due_date"]), f"whoever has the task '{like['task_name']}'"
        when = f"due on the same day as the task '{other['task_name']}'"
        looks = [call("project_management_search_tasks", task_name=task["task_name"]) for task in (like, other)]
    text = f"Make a task '{name}' for {who}, on the {row['board']} board, in the list {row['list_name']}, {when}."
    return Ask(text, [*looks, call("project_management_create_task", **row, due_date=f"{due:%F}")])


def change_tasks(office: Office, level: int) -> Ask | None:
    one = office.rng.choice(office.rows("tasks"))
    owner, board = one["assigned_to_email"], one["board"]
    who = first_name(owner)
    if level == 0:
        to = office.rng.choice([name for name in LISTS if name != one["list_name"]])
        look = call("project_management_search_tasks", task_name=one["task_name"])
        move = set_field("project_management_update_task", "task_id", one, "list_name", to)
        return Ask(f"Move the task '{one['task_name']}' to {to}.", [look, move])
    tasks = office.rows("tasks", assigned_to_email=owner)
    looks = [find(owner), call("project_management_search_tasks", assigned_to_email=owner)]
    if level == 1:
        to = office.rng.choice(
            [row["assigned_to_email"] for row in office.rows("tasks") if row["assigned_to_email"] != owner]
        )
        chosen = [row for row in tasks if (row["board"], row["list_name"]) == (board, one["list_name"])]
        text = f"{first_name(to)} takes over all tasks that {who} has in the list {one['list_name']} of the {board} board."
        looks.append(find(to))
        new = ("assigned_to_email", to)
    else:
        due = office.workday()
        chosen = [row for row in tasks if row["due_date"] < f"{TODAY:%F}" and row["list_name"] != "Completed"]
        text = (
            f"Those of {who}'s tasks that were due before today and are not in Completed get a new due date:"
            f" {said(due)}. Please change them."
        )
        new = ("due_date", f"{due:%F}")
    if not 1 <= len(chosen) <= 5:
        return None
    return Ask(text, [*looks, *(set_field("project_management_update_task", "task_id", row, *new) for row in chosen)])


def change_customers(office: Office, level: int) -> Ask | None:
    one = office.rng.choice(office.rows("customers"))
    seller, product, status = one["assigned_to_email"], one["product_interest"], one["status"]
    search = "customer_relationship_manager_search_customers"
    if level == 0:
        to = office.rng.choice([name for name in STATUSES if name != status])
        text, new, chosen = f"Set the status of {one['customer_name']} to {to} in the CRM.", ("status", to), [one]
        looks = [call(search, customer_name=one["customer_name"])]
    elif level == 1:
        other = office.rng.choice(sorted({row["assigned_to_email"] for row in office.rows("customers")} - {seller}))
        chosen = office.rows("customers", assigned_to_email=seller, product_interest=product, status=status)
        text = (
            f"{first_name(other)} takes over those of {first_name(seller)}'s customers that are interested in"
            f" {product} and have the status {status}. Please assign them."
        )
        new = ("assigned_to_email", other)
        looks = [find(seller), find(other)]
        looks.append(call(search, assigned_to_email=seller, product_interest=product, status=status, page_size=50))
    else:
        weeks = office.rng.randint(3, 8)
        before = TODAY - timedelta(7 * weeks)
        chosen = office.rows("customers", product_interest=product, status="Proposal")
        chosen = [row for row in chosen if row["last_contact_date"] < f"{before:%F}"]
        text = (
            f"Customers with a proposal for {product} whose last contact was before {said(before)} are Lost. Please set it."
        )
        new = ("status", "Lost")
        least = {"last_contact_date_max": f"{before - timedelta(1):%F}"}
        looks = [call(search, product_interest=product, status="Proposal", **least, page_size=50)]
    if not 1 <= len(chosen) <= 6:
        return None
    update = "customer_relationship_manager_update_customer"
    return Ask(text, [*looks, *(set_field(update, "customer_id", row, *new) for row in chosen)])


def customer_list(office: Office, level: int) -> Ask | None:
    one = office.rng.choice(office.rows("customers"))
    seller, search = one["assigned_to_email"], "customer_relationship_manager_search_customers"
    remove = "customer_relationship_manager_delete_customer"
    if level == 0:
        look = call(search, customer_name=one["customer_name"])
        return Ask(f"Remove {one['customer_name']} from the CRM.", [look, call(remove, customer_id=one["customer_id"])])
    if level == 1:
        name = f"{office.rng.choice(NEW_FIRST)} {office.rng.choice(NEW_LAST)}"
        product, due = office.rng.choice(PRODUCTS), office.workday()
        text = (
            f"Add {name} to the CRM as a Lead for {first_name(seller)}, interested in {product},"
            f" to be followed up by {said(due)}."
        )
        row = {"customer_name": name, "assigned_to_email": seller, "status": "Lead", "product_interest": product}
        add = call("customer_relationship_manager_add_customer", **row, follow_up_by=f"{due:%F}")
        return Ask(text, [find(seller), add])
    until = office.workday(3, 20)
    chosen = office.rows("customers", assigned_to_email=seller, status="Lost")
    chosen = [row for row in chosen if row["follow_up_by"] <= f"{until:%F}"]
    if not 2 <= len(chosen) <= 6:
        return None
    who = first_name(seller)
    text = f"Delete {who}'s customers with the status Lost that are to be followed up by {said(until)} or earlier."
    look = call(search, assigned_to_email=seller, status="Lost", follow_up_by_max=f"{until:%F}", page_size=50)
    return Ask(text, [find(seller), look, *(call(remove, customer_id=row["customer_id"]) for row in chosen)])


def plot(office: Office, level: int) -> Ask | None:
    rng = office.rng
    [(value, name), (other, other_name)] = rng.sample(list(PLOTTED.items()), 2)
    kind = rng.choice(("bar", "line", "scatter"))
    first = TODAY - timedelta(rng.randint(8, 55))
    last = first + timedelta(rng.randint(2, 6))
    looks: list[Json] = []
    when = f"from {said(first)} to {said(last)}"
    if level == 1:
        back = rng.randint(3, 30)
        first, last = TODAY - timedelta(back), TODAY - timedelta(1)
        when = f"of the last {back} days, up to and with yesterday"
    text = f"Make a {kind} plot of the {name} {when}."
    if level == 2:
        counts = [sum(visit["date_of_visit"] == f"{day:%F}" for visit in office.data.visits) for day in (first, last)]
        if counts[0] == counts[1]:
            return None
        text = (
            f"If there were more visits on {said(last)} than on {said(first)}, make a {kind} plot of the {name}"
            f" between these days, both included; if not, one of the {other_name}."
        )
        looks = [call("analytics_total_visits_count", time_min=f"{first:%F}", time_max=f"{last:%F}")]
        value = value if counts[1] > counts[0] else other
    times = {"time_min": f"{first:%F}", "time_max": f"{last:%F}"}
    return Ask(text, [*looks, call("analytics_create_plot", **times, value_to_plot=value, plot_type=kind)])


def tell(office: Office, level: int) -> Ask | None:
    one = office.rng.choice(office.rows("customers"))
    subject, body = office.rng.choice(NEWS)
    seller, search = one["assigned_to_email"], "customer_relationship_manager_search_customers"
    letter = f"one e-mail with the subject '{subject}' and the text '{body}'"
    if level < 2:
        calls = [call(search, customer_name=one["customer_name"]), mail_to(seller, subject, body)]
        text = f"Send whoever the customer {one['customer_name']} is assigned to {letter}."
        if level == 1:
            due = office.workday()
            text += f" Then set the follow-up date of the customer to {said(due)}."
            update = "customer_relationship_manager_update_customer"
            calls.append(set_field(update, "customer_id", one, "follow_up_by", f"{due:%F}"))
        return Ask(text, calls)
    board = office.rng.choice(BOARDS)
    where = office.rng.choice(("Backlog", "In Progress", "In Review"))
    late = [row for row in office.rows("tasks", board=board, list_name=where) if row["due_date"] < f"{TODAY:%F}"]
    owners = sorted({row["assigned_to_email"] for row in late})
    if not 2 <= len(owners) <= 5:
        return None
    text = f"Everybody who has a task in the list {where} of the {board} board that was due before today gets {letter}."
    look = call("project_management_search_tasks", board=board, list_name=where)
    return Ask(text, [look, *(mail_to(person, subject, body) for person in owners)])


def follow_up(office: Office, level: int) -> Ask | None:
    task = office.rng.choice(office.rows("tasks", list_name="In Progress"))
    day, name = office.workday(), office.rng.choice(TITLES)
    owner = task["assigned_to_email"]
    calls = [call("project_management_search_tasks", task_name=task["task_name"])]
    start = datetime(day.year, day.month, day.day, office.rng.randint(9, 16), office.rng.choice((0, 30)))
    when = f"on {said(day)} at {start:%H:%M}"
    if level == 2:
        free = free_slot(office.events(day), day, 30)
        if free is None:
            return None
        start, when = free, f"on {said(day)}, as early as nothing else is on, on the hour or the half hour"
        calls.append(day_of(day))
    times = {"event_start": f"{start:%F %T}", "duration": "30"}
    calls.append(call("calendar_create_event", event_name=name, participant_email=owner, **times))
    text = f"Put '{name}', 30 minutes, with whoever has the task '{task['task_name']}' into my calendar {when}."
    if level:
        calls.append(set_field("project_management_update_task", "task_id", task, "list_name", "In Review"))
        text += " Then move the task to In Review."
    return Ask(text, calls)
