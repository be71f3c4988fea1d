class Desk:
    """The state of one session."""

    def __init__(self) -> None:
        self.mails: list[str] = []

    def mail_add(self, text: str) -> str:
        self.mails.append(text)
        return f"{len(self.mails)} mails"
