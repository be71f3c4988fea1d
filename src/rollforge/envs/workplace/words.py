"""Words that the tasks of the workplace are made of."""

from __future__ import annotations

REPLIES = (
    "Thank you, I will look at it tomorrow.",
    "Sounds good, please go on.",
    "Can we talk about this on Monday?",
    "I have passed this on to the board.",
    "Please send me the numbers first.",
    "No objections from my side.",
)
TITLES = (
    "Contract talk",
    "Demo rehearsal",
    "Feedback round",
    "Handover",
    "Kick-off",
    "Lessons learned",
    "Mentoring",
    "Price review",
    "Roadmap check",
    "Site visit",
)
NEW_WORK = (
    "Add dark mode",
    "Cache thumbnails",
    "Compare font choices",
    "Draft the style guide",
    "Limit login attempts",
    "Measure start-up time",
    "Replace the date picker",
    "Rotate the access keys",
    "Sort results by date",
    "Translate error messages",
)
NEWS = (
    ("Prices", "The new price list is valid from April."),
    ("Office closed", "The office is closed on Friday afternoon."),
    ("Status needed", "Please send me a short status by tomorrow noon."),
    ("Numbers", "I need your figures for the quarterly report."),
    ("New contact", "From now on please talk to me about this."),
)
NEW_FIRST = ["Ada", "Basil", "Clara", "Doran", "Elsie", "Florian", "Greta", "Hugo"]
NEW_LAST = ["Quill", "Rowan", "Sterling", "Thorne", "Underhill", "Vance", "Whitlock", "Yarrow"]
PLOTTED = {
    "total_visits": "total visits",
    "session_duration_seconds": "session duration",
    "user_engaged": "engaged users",
    "visits_direct": "direct visits",
    "visits_referral": "visits by referral",
    "visits_search_engine": "visits from search engines",
    "visits_social_media": "visits from social media",
}
