"""Tools of the workplace: company directory, mail, calendar."""

from __future__ import annotations

from rollforge.envs.workplace.desk import LEFT_OUT, Count, Desk, Text, a_day, a_time, minutes, needed, output, paged
from rollforge.envs.workplace.store import Row


class Directory(Desk):
    def company_directory_find_email_address(self, name: Text = LEFT_OUT) -> Row:
        """Find the e-mail addresses of the people of the company whose address has a text in it; letter case is ignored.

        Args:
            name: A name or a part of one
        """
        if not name:
            raise ValueError("name is needed")
        return output([address for address in self._people() if name.casefold() in address.casefold()])


class Mail(Desk):
    def email_get_email_information_by_id(self, email_id: str, field: str) -> Row:
        """Read one field of an e-mail.

        Args:
            email_id: ID of the e-mail
            field: One of 'email_id', 'inbox/outbox', 'sender/recipient', 'subject', 'sent_datetime', 'body'
        """
        return self._information("emails", email_id, field, "Email")

    def email_search_emails(
        self,
        query: Text = LEFT_OUT,
        date_min: Text = LEFT_OUT,
        date_max: Text = LEFT_OUT,
        page: Count = LEFT_OUT,
        page_size: Count = LEFT_OUT,
    ) -> Row:
        """Search e-mails, the latest first. An e-mail is found if every word of the query is in its subject, body, sender or
        recipient.

        Args:
            query: Words to look for; without any, all e-mails
            date_min: First day, YYYY-MM-DD
            date_max: Last day, YYYY-MM-DD
            page: Page of the results, from 1
            page_size: E-mails on a page, 5 if not given
        """
        words = (query or "").casefold().split()
        first, last = (
            f"{a_day(day, name)}" if day else "" for day, name in ((date_min, "date_min"), (date_max, "date_max"))
        )
        found = [
            row
            for row in self._table("emails").rows()
            if first <= row["sent_datetime"][:10] and (not last or row["sent_datetime"][:10] <= last) and _has(row, words)
        ]
        found.sort(key=lambda row: str(row["sent_datetime"]), reverse=True)
        return paged("emails", found, page, page_size)

    def email_send_email(self, recipient: str, subject: str, body: str) -> Row:
        """Send an e-mail.

        Args:
            recipient: E-mail address it goes to
            subject: Subject line
            body: Text of the e-mail
        """
        return self._send(recipient, subject, body, "sent")

    def email_delete_email(self, email_id: str) -> Row:
        """Delete an e-mail.

        Args:
            email_id: ID of the e-mail
        """
        return self._delete("emails", email_id, "Email")

    def email_forward_email(self, email_id: str, recipient: str) -> Row:
        """Forward an e-mail to somebody.

        Args:
            email_id: ID of the e-mail
            recipient: E-mail address it goes to
        """
        row = self._row("emails", email_id, "Email")
        return self._send(recipient, f"FW: {row['subject']}", row["body"] or "(empty)", "forwarded")

    def email_reply_email(self, email_id: str, body: str) -> Row:
        """Reply to an e-mail.

        Args:
            email_id: ID of the e-mail
            body: Text of the reply
        """
        row = self._row("emails", email_id, "Email")
        return self._send(row["sender/recipient"], f"RE: {row['subject']}", body, "replied", checked=False)

    def _send(self, recipient: str, subject: str, body: str, done: str, checked: bool = True) -> Row:
        table = self._table("emails")
        if checked and ("@" not in recipient or "." not in recipient):
            raise ValueError(f"{recipient!r:.80} is no e-mail address")
        needed(recipient=recipient, subject=subject, body=body)
        row = {"inbox/outbox": "outbox", "sender/recipient": recipient.lower(), "subject": subject}
        table.add({**row, "sent_datetime": self.store.data.now, "body": body})
        return output(f"Email {done} successfully.")


class Calendar(Desk):
    def calendar_get_event_information_by_id(self, event_id: str, field: str) -> Row:
        """Read one field of an event.

        Args:
            event_id: ID of the event, 8 digits
            field: One of 'event_id', 'event_name', 'participant_email', 'event_start', 'duration'
        """
        return self._information("events", event_id, field, "Event")

    def calendar_search_events(
        self,
        query: Text = LEFT_OUT,
        time_min: Text = LEFT_OUT,
        time_max: Text = LEFT_OUT,
        page: Count = LEFT_OUT,
        page_size: Count = LEFT_OUT,
    ) -> Row:
        """Search events, the latest start first.

        Args:
            query: Text in the name of the event or the address of its participant; without any, all events
            time_min: Earliest start, YYYY-MM-DD HH:MM:SS
            time_max: Latest start, YYYY-MM-DD HH:MM:SS
            page: Page of the results, from 1
            page_size: Events on a page, 5 if not given
        """
        part = (query or "").casefold()
        first = a_time(time_min, "time_min") if time_min else ""
        last = a_time(time_max, "time_max") if time_max else ""
        found = [
            row
            for row in self._table("events").rows()
            if first <= row["event_start"]
            and (not last or row["event_start"] <= last)
            and (part in str(row["event_name"]).casefold() or part in str(row["participant_email"]).casefold())
        ]
        found.sort(key=lambda row: str(row["event_start"]), reverse=True)
        return paged("events", found, page, page_size)

    def calendar_create_event(self, event_name: str, participant_email: str, event_start: str, duration: str) -> Row:
        """Add an event; returns its ID.

        Args:
            event_name: Name of the event
            participant_email: E-mail address of the participant
            event_start: Start, YYYY-MM-DD HH:MM:SS
            duration: Minutes
        """
        needed(event_name=event_name, participant_email=participant_email)
        row = {"event_name": event_name, "participant_email": participant_email.lower()}
        times = {"event_start": a_time(event_start, "event_start"), "duration": minutes(duration)}
        return output(self._table("events").add({**row, **times}))

    def calendar_delete_event(self, event_id: str) -> Row:
        """Delete an event.

        Args:
            event_id: ID of the event, 8 digits
        """
        return self._delete("events", event_id, "Event")

    def calendar_update_event(self, event_id: str, field: str, new_value: str) -> Row:
        """Change one field of an event.

        Args:
            event_id: ID of the event, 8 digits
            field: One of 'event_name', 'participant_email', 'event_start', 'duration'
            new_value: The new value
        """
        return self._update("events", event_id, field, new_value, "Event")


def _has(row: Row, words: list[str]) -> bool:
    text = f"{row['subject']} {row['body']} {row['sender/recipient']}".casefold() if words else ""
    return all(word in text for word in words)
