class Desk:
    """The state of one session."""

    def __init__(self) -> None:
        self.plans: list[str] = []

    def plan_add(self, text: str) -> str:
        self.plans.append(text)
        return f"{len(self.plans)} plans"
