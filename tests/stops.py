"""A reporter that is asked to stop."""

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
