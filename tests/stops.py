"""Reporters that are asked to stop, and that remember what they were told."""

from gptwo.progress import Reporter


class StopsAfter(Reporter):
    """Asked to stop after a number of looks."""

    def __init__(self, looks: int) -> None:
        super().__init__(quiet=True)
        self.looks = looks

    def check(self) -> None:
        self.looks -= 1
        self.stop_requested = self.looks < 0
        super().check()


class Listens(Reporter):
    """A reporter that remembers what it was told."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.heard: list[str] = []

    def say(self, text: str) -> None:
        self.heard.append(text)
