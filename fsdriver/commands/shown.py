"""Names of files in what people read on a terminal."""

import unicodedata


def shown(path: object) -> str:
    """`path` with whatever could fool a terminal or its reader written as an escape."""
    return "".join(letter if letter.isprintable() and letter != "\\" else _escape(letter) for letter in str(path))


def end_shown(path: str, columns: int) -> str:
    """The end of `path`, in just as many columns of a terminal; Chinese letters have two."""
    letters, width = "", 0
    for letter in reversed(shown(path)):
        wide = 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if width + wide > columns:
            break
        letters, width = letter + letters, width + wide
    return letters + " " * (columns - width)


def _escape(letter: str) -> str:
    number = ord(letter)
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02x}"  # a byte that is no UTF-8
    return letter.encode("unicode_escape").decode()


def ranges_shown(ranges: list[tuple[int, int]], most: int) -> list[str]:
    """Plain ranges (start, end) as people count bytes, at most that many, and how many more there are."""
    lines = [f"bytes {start} to {end - 1} ({end - start})" for start, end in ranges[:most]]
    return lines + ([f"{len(ranges) - most} more ranges"] if len(ranges) > most else [])
