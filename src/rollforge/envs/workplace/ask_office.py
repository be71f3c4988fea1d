"""Tasks about mail and the calendar."""

from __future__ import annotations

from datetime import datetime, timedelta

from rollforge.envs.workplace.ask import (
    Ask,
    Office,
    call,
    day_of,
    find,
    first_name,
    free_slot,
    part_of,
    said,
    set_field,
)
from rollforge.envs.workplace.company import TODAY, days
from rollforge.envs.workplace.words import REPLIES, TITLES


def reply(office: Office, level: int) -> Ask | None:
    sender, body = office.person(), office.rng.choice(REPLIES)
    who = first_name(sender)
    if level == 2:
        since = office.workday(-14, -2)
        letters = office.received(sender, f"{since:%F}")
        if not 2 <= len(letters) <= 4:
            return None
        text = f"Reply to every e-mail that {who} has sent me since {said(since)} with '{body}'."
        look = call("email_search_emails", query=who.lower(), date_min=f"{since:%F}", page_size=50)
    else:
        letters = office.received(sender)
        if not letters:
            return None
        about = part_of([office.rng.choice(letters)]) if level else ""
        letters = [row for row in letters if about in row["subject"]][-1:]
        text = f"Reply to the last e-mail I got from {who}{f' about the {about}' if about else ''} with '{body}'."
        look = call("email_search_emails", query=f"{who.lower()} {about}".strip(), page_size=50)
    return Ask(text, [look, *(call("email_reply_email", email_id=row["email_id"], body=body) for row in letters)])


def forward(office: Office, level: int) -> Ask | None:
    sender = office.person()
    to = office.rng.sample([person for person in office.data.directory if person != sender], 2)
    names = [first_name(person) for person in (sender, *to)]
    letters = office.received(sender)
    if not letters:
        return None
    about = part_of([office.rng.choice(letters)])
    if level == 0:
        wanted, query, what = letters[-1], names[0].lower(), f"the last e-mail I got from {names[0]}"
    elif level == 1:
        letters = [row for row in office.received() if about in row["subject"]]
        wanted, query, what = letters[-1], about, f"the last e-mail that anybody sent me about the {about}"
    else:
        letters = [row for row in letters if about in row["subject"]]
        wanted, query = letters[0], f"{names[0].lower()} {about}"
        what = f"the first e-mail that {names[0]} sent me about the {about}"
    id = wanted["email_id"]
    calls = [call("email_search_emails", query=query, page_size=80), *map(find, to[: 1 + level // 2])]
    calls += [call("email_forward_email", email_id=id, recipient=person) for person in to[: 1 + level // 2]]
    if level == 2:
        calls.append(call("email_delete_email", email_id=id))
        return Ask(f"Forward {what} to {names[1]} and to {names[2]}, then delete it.", calls)
    return Ask(f"Please forward {what} to {names[1]}.", calls)


def tidy(office: Office, level: int) -> Ask | None:
    sender = office.person()
    who = first_name(sender)
    since = office.workday(-25, -2)
    letters = office.received(sender)
    if level == 0:
        letters, what = letters[-1:], f"the last e-mail from {who}"
    elif level == 1:
        letters, what = office.received(sender, f"{since:%F}"), f"all e-mails that came from {who} since {said(since)}"
    else:
        other = office.person(sender)
        letters = [*office.received(sender, f"{since:%F}"), *office.received(other, f"{since:%F}")]
        what = f"everything that {who} and {first_name(other)} have sent me since {said(since)}; keep what I wrote to them"
    if not (1 if level < 2 else 3) <= len(letters) <= 7:
        return None
    looks = [call("email_search_emails", query=who.lower(), page_size=50)]
    if level == 2:
        looks.append(call("email_search_emails", query=first_name(other).lower(), page_size=50))
    return Ask(f"Delete {what}.", [*looks, *(call("email_delete_email", email_id=row["email_id"]) for row in letters)])


def book(office: Office, level: int) -> Ask | None:
    person, name, minutes = office.person(), office.rng.choice(TITLES), office.rng.choice((30, 45, 60, 90))
    day = office.workday()
    looks = [find(person)]
    start = datetime(day.year, day.month, day.day, office.rng.randint(9, 15), office.rng.choice((0, 15, 30)))
    when = f"on {said(day)} at {start:%H:%M}"
    if level == 1:
        day = office.rng.choice([*days(1, 1), *days(4, 8)])
        start = datetime(day.year, day.month, day.day, start.hour, start.minute)
        when = f"{'tomorrow' if day == TODAY + timedelta(1) else f'on {day:%A} of next week'} at {start:%-I:%M %p}"
    elif level == 2:
        free = free_slot(office.events(day), day, minutes)
        if free is None:
            return None
        start, when = free, f"on {said(day)}, as early as nothing else is on, on the hour or the half hour"
        looks.append(day_of(day))
    text = f"Put '{name}' with {first_name(person)} into my calendar {when}, for {minutes} minutes."
    times = {"event_start": f"{start:%F %T}", "duration": str(minutes)}
    return Ask(text, [*looks, call("calendar_create_event", event_name=name, participant_email=person, **times)])


def move(office: Office, level: int) -> Ask | None:
    day = office.workday()
    events = office.events(day)
    if not events:
        return None
    if level == 0:
        event, name = office.rng.choice(events), office.rng.choice(TITLES)
        text = f"Rename my meeting on {said(day)} at {event['event_start'][11:16]} to '{name}'."
        new = ("event_name", name)
    elif level == 1:
        event, shift = office.rng.choice(((events[0], 15), (events[-1], 15), (events[-1], -30), (events[0], -30)))
        which = "first" if event is events[0] else "last"
        if len(events) < 2:
            return None
        start = datetime.fromisoformat(event["event_start"]) + timedelta(minutes=shift)
        text = f"Let my {which} meeting on {said(day)} start {abs(shift)} minutes {'later' if shift > 0 else 'earlier'}."
        new = ("event_start", f"{start:%F %T}")
    else:
        longest = max(int(row["duration"]) for row in events)
        event, *others = [row for row in events if int(row["duration"]) == longest]
        to = office.workday()
        start_at = free_slot(office.events(to), to, longest)
        if others or start_at is None or to == day:
            return None
        text = (
            f"Move my longest meeting of {said(day)} to {said(to)}, to the earliest time when nothing else is on, on the"
            " hour or the half hour. Its length stays."
        )
        new = ("event_start", f"{start_at:%F %T}")
        looks = [day_of(day), day_of(to)]
        return Ask(text, [*looks, set_field("calendar_update_event", "event_id", event, *new)])
    return Ask(text, [day_of(day), set_field("calendar_update_event", "event_id", event, *new)])


def cancel(office: Office, level: int) -> Ask | None:
    person = office.person()
    who = first_name(person)
    events = sorted(office.rows("events", participant_email=person), key=lambda row: str(row["event_start"]))
    coming = [row for row in events if row["event_start"] > office.data.now]
    if level == 0:
        chosen, what = coming[:1], f"my next meeting with {who}"
    elif level == 1:
        chosen = [
            row for row in coming if f"{TODAY + timedelta(4):%F}" <= row["event_start"] < f"{TODAY + timedelta(11):%F}"
        ]
        what = f"all my meetings with {who} next week"
    else:
        until = office.workday(10, 28)
        chosen = [row for row in coming if row["event_start"][:10] <= f"{until:%F}" and int(row["duration"]) >= 60]
        what = f"all my meetings with {who} of an hour or more between now and the end of {said(until)}"
    if not max(1, level) <= len(chosen) <= 5:
        return None
    look = call("calendar_search_events", query=who.lower(), time_min=office.data.now, page_size=50)
    return Ask(f"Cancel {what}.", [look, *(call("calendar_delete_event", event_id=row["event_id"]) for row in chosen)])
