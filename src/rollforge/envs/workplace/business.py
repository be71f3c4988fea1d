"""Tools of the workplace: analytics of the web site, project management, customers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from rollforge.envs.workplace.company import BOARDS, LISTS, PRODUCTS, STATUSES
from rollforge.envs.workplace.desk import LEFT_OUT, Count, Desk, Text, a_day, containing, needed, one_of, output, paged
from rollforge.envs.workplace.store import Row

PLOTTED = (
    "total_visits",
    "session_duration_seconds",
    "user_engaged",
    "visits_direct",
    "visits_referral",
    "visits_search_engine",
    "visits_social_media",
)
PLOTS = ("bar", "line", "scatter", "histogram")


class Analytics(Desk):
    def analytics_get_visitor_information_by_id(self, visitor_id: str) -> Row:
        """Read what is known of a visitor of the web site.

        Args:
            visitor_id: ID of the visitor
        """
        found = [visit for visit in self._visits() if visit["visitor_id"] == visitor_id]
        if not found:
            raise ValueError("Visitor not found.")
        return output(found)

    def analytics_create_plot(self, time_min: str, time_max: str, value_to_plot: str, plot_type: str) -> Row:
        """Draw a plot of the visits of a time; returns the path of the picture.

        Args:
            time_min: First day, YYYY-MM-DD
            time_max: Last day, YYYY-MM-DD
            value_to_plot: One of 'total_visits', 'session_duration_seconds', 'user_engaged', 'visits_direct', \
'visits_referral', 'visits_search_engine', 'visits_social_media'
            plot_type: One of 'bar', 'line', 'scatter', 'histogram'
        """
        one_of("value_to_plot", value_to_plot, PLOTTED)
        one_of("plot_type", plot_type, PLOTS)
        first, last = a_day(time_min, "time_min"), a_day(time_max, "time_max")
        path = f"plots/{first}_{last}_{value_to_plot}_{plot_type}.png"
        self._table("plots").add({"file_path": path})
        return output(path)

    def analytics_total_visits_count(self, time_min: Text = LEFT_OUT, time_max: Text = LEFT_OUT) -> Row:
        """Count visits by day.

        Args:
            time_min: First day, YYYY-MM-DD
            time_max: Last day, YYYY-MM-DD
        """
        return output({day: len(visits) for day, visits in self._days(time_min, time_max).items()})

    def analytics_engaged_users_count(self, time_min: Text = LEFT_OUT, time_max: Text = LEFT_OUT) -> Row:
        """Count engaged visitors by day.

        Args:
            time_min: First day, YYYY-MM-DD
            time_max: Last day, YYYY-MM-DD
        """
        found = self._days(time_min, time_max).items()
        return output({day: sum(bool(visit["user_engaged"]) for visit in visits) for day, visits in found})

    def analytics_traffic_source_count(
        self, time_min: Text = LEFT_OUT, time_max: Text = LEFT_OUT, traffic_source: Text = LEFT_OUT
    ) -> Row:
        """Count visits by day that came from one source; without a source, all visits.

        Args:
            time_min: First day, YYYY-MM-DD
            time_max: Last day, YYYY-MM-DD
            traffic_source: One of 'direct', 'referral', 'search engine', 'social media'
        """
        found = self._days(time_min, time_max).items()
        wanted = traffic_source or None
        return output({day: sum(wanted in (None, visit["traffic_source"]) for visit in visits) for day, visits in found})

    def analytics_get_average_session_duration(self, time_min: Text = LEFT_OUT, time_max: Text = LEFT_OUT) -> Row:
        """Average length of a visit in seconds, by day.

        Args:
            time_min: First day, YYYY-MM-DD
            time_max: Last day, YYYY-MM-DD
        """
        found = self._days(time_min, time_max).items()
        seconds = {day: [float(visit["session_duration_seconds"]) for visit in visits] for day, visits in found}
        return output({day: sum(lengths) / len(lengths) for day, lengths in seconds.items()})

    def _visits(self) -> Iterable[Row]:
        self._table("plots")
        return self.store.data.visits

    def _days(self, first: str | None, last: str | None) -> dict[str, list[Row]]:
        first, last = first and a_day(first, "time_min"), last and a_day(last, "time_max")
        found: dict[str, list[Row]] = defaultdict(list)
        for visit in self._visits():
            day = str(visit["date_of_visit"])
            if (not first or first <= day) and (not last or day <= last):
                found[day].append(visit)
        return dict(sorted(found.items()))


class Projects(Desk):
    def project_management_get_task_information_by_id(self, task_id: str, field: str) -> Row:
        """Read one field of a task.

        Args:
            task_id: ID of the task, 8 digits
            field: One of 'task_id', 'task_name', 'assigned_to_email', 'list_name', 'due_date', 'board'
        """
        return self._information("tasks", task_id, field, "Task")

    def project_management_search_tasks(
        self,
        task_name: Text = LEFT_OUT,
        assigned_to_email: Text = LEFT_OUT,
        list_name: Text = LEFT_OUT,
        due_date: Text = LEFT_OUT,
        board: Text = LEFT_OUT,
    ) -> Row:
        """Search tasks by one or several of their fields.

        Args:
            task_name: Text in the name of the task
            assigned_to_email: Whole e-mail address of the person who has the task
            list_name: Text in the name of its list
            due_date: Due date, YYYY-MM-DD
            board: Text in the name of its board
        """
        parts = {"task_name": task_name, "list_name": list_name, "due_date": due_date, "board": board}
        if not any((*parts.values(), assigned_to_email)):
            raise ValueError("give at least one field to search by")
        found = containing(self._table("tasks").rows(), parts)
        if assigned_to_email:
            whom = assigned_to_email.casefold()
            found = [row for row in found if str(row["assigned_to_email"]).casefold() == whom]
        return output(found)

    def project_management_create_task(
        self, task_name: str, assigned_to_email: str, list_name: str, due_date: str, board: str
    ) -> Row:
        """Add a task; returns its ID.

        Args:
            task_name: Name of the task
            assigned_to_email: E-mail address of the person who has it, one of those who have tasks
            list_name: One of 'Backlog', 'In Progress', 'In Review', 'Completed'
            due_date: Due date, YYYY-MM-DD
            board: One of 'Back end', 'Front end', 'Design'
        """
        needed(task_name=task_name)
        one_of("list_name", list_name, LISTS)
        one_of("board", board, BOARDS)
        self._check_team(assigned_to_email)
        row = {"task_name": task_name, "assigned_to_email": assigned_to_email.lower(), "list_name": list_name}
        return output(self._table("tasks").add({**row, "due_date": a_day(due_date, "due_date"), "board": board}))

    def project_management_delete_task(self, task_id: str) -> Row:
        """Delete a task.

        Args:
            task_id: ID of the task, 8 digits
        """
        return self._delete("tasks", task_id, "Task")

    def project_management_update_task(self, task_id: str, field: str, new_value: str) -> Row:
        """Change one field of a task.

        Args:
            task_id: ID of the task, 8 digits
            field: One of 'task_name', 'assigned_to_email', 'list_name', 'due_date', 'board'
            new_value: The new value
        """
        return self._update("tasks", task_id, field, new_value, "Task")


class Customers(Desk):
    def customer_relationship_manager_search_customers(
        self,
        customer_name: Text = LEFT_OUT,
        customer_email: Text = LEFT_OUT,
        product_interest: Text = LEFT_OUT,
        status: Text = LEFT_OUT,
        assigned_to_email: Text = LEFT_OUT,
        last_contact_date_min: Text = LEFT_OUT,
        last_contact_date_max: Text = LEFT_OUT,
        follow_up_by_min: Text = LEFT_OUT,
        follow_up_by_max: Text = LEFT_OUT,
        page: Count = LEFT_OUT,
        page_size: Count = LEFT_OUT,
    ) -> Row:
        """Search customers by one or several of their fields.

        Args:
            customer_name: Text in the name
            customer_email: Text in the e-mail address of the customer
            product_interest: Text in the product the customer is interested in
            status: Text in the status
            assigned_to_email: Text in the e-mail address of the person the customer is assigned to
            last_contact_date_min: Earliest last contact, YYYY-MM-DD
            last_contact_date_max: Latest last contact, YYYY-MM-DD
            follow_up_by_min: Earliest follow-up, YYYY-MM-DD
            follow_up_by_max: Latest follow-up, YYYY-MM-DD
            page: Page of the results, from 1
            page_size: Customers on a page, 5 if not given
        """
        parts = {"customer_name": customer_name, "customer_email": customer_email, "product_interest": product_interest}
        parts |= {"status": status, "assigned_to_email": assigned_to_email}
        ranges = {
            "last_contact_date": (last_contact_date_min, last_contact_date_max),
            "follow_up_by": (follow_up_by_min, follow_up_by_max),
        }
        if not any((*parts.values(), *ranges["last_contact_date"], *ranges["follow_up_by"])):
            raise ValueError("give at least one field to search by")
        # Compared as text, as in NeMo Gym: where a date has a time of day, it is after the bare date.
        found = [
            row
            for row in containing(self._table("customers").rows(), parts)
            if all(
                row[field] and (least or "") <= row[field] and (not most or row[field] <= most)
                for field, (least, most) in ranges.items()
                if least or most
            )
        ]
        return paged("customers", found, page, page_size)

    def customer_relationship_manager_update_customer(self, customer_id: str, field: str, new_value: str) -> Row:
        """Change one field of a customer.

        Args:
            customer_id: ID of the customer
            field: One of 'customer_name', 'assigned_to_email', 'customer_email', 'customer_phone', 'last_contact_date', \
'product_interest', 'status', 'notes', 'follow_up_by'
            new_value: The new value
        """
        return self._update("customers", customer_id, field, new_value, "Customer")

    def customer_relationship_manager_add_customer(
        self,
        customer_name: str,
        assigned_to_email: str,
        status: str,
        customer_email: Text = LEFT_OUT,
        customer_phone: Text = LEFT_OUT,
        last_contact_date: Text = LEFT_OUT,
        product_interest: Text = LEFT_OUT,
        notes: Text = LEFT_OUT,
        follow_up_by: Text = LEFT_OUT,
    ) -> Row:
        """Add a customer; returns its ID.

        Args:
            customer_name: Name of the customer
            assigned_to_email: E-mail address of the person the customer is assigned to
            status: One of 'Qualified', 'Won', 'Lost', 'Lead', 'Proposal'
            customer_email: E-mail address of the customer
            customer_phone: Phone number of the customer
            last_contact_date: Last contact, YYYY-MM-DD
            product_interest: One of 'Software', 'Hardware', 'Services', 'Consulting', 'Training'
            notes: Notes about the customer
            follow_up_by: Day of the next contact, YYYY-MM-DD
        """
        needed(customer_name=customer_name, assigned_to_email=assigned_to_email)
        one_of("status", status, STATUSES)
        if product_interest:
            one_of("product_interest", product_interest, PRODUCTS)
        row = {
            "assigned_to_email": assigned_to_email.lower(),
            "customer_name": customer_name,
            "customer_email": (customer_email or "").lower() or None,
            "customer_phone": customer_phone or None,
            "last_contact_date": last_contact_date or None,
            "product_interest": product_interest or None,
            "status": status,
            "follow_up_by": follow_up_by or None,
            "notes": notes or "",
        }
        return output(self._table("customers").add(row))

    def customer_relationship_manager_delete_customer(self, customer_id: str) -> Row:
        """Delete a customer.

        Args:
            customer_id: ID of the customer
        """
        return self._delete("customers", customer_id, "Customer")
