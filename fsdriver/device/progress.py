"""Whether a thread that serves requests still gets anywhere."""


class Progress:
    """`turn` is odd while a request is being handled. Two additions a request instead of two looks at the clock."""

    __slots__ = ("name", "turn")

    def __init__(self, name: str) -> None:
        self.name = name
        self.turn = 0
