"""The table as a picture: for each row a bar a system, as long as its time is of gocryptfs's (SVG, no library)."""

from xml.sax.saxutils import escape

COLOURS = ("#1b6ca8", "#7fb3d5", "#b0b0b0", "#c9a66b", "#a67c52", "#6b4f35", "#dddddd")
_BAR, _GAP, _LEFT, _WIDTH = 11, 14, 120, 620
_MOST = 3.0
"""Times gocryptfs: longer bars are cut off, and say their number."""


def svg(ratios: dict[str, dict[str, float]], systems: list[str], title: str) -> str:
    """`ratios`: row -> system -> time by gocryptfs's. A line marks 1: left of it is faster."""
    parts, y = [], 54
    for number, system in enumerate(systems):
        x = _LEFT + 78 * number
        parts.append(f'<rect x="{x}" y="28" width="10" height="10" fill="{COLOURS[number]}"/>')
        parts.append(f'<text x="{x + 14}" y="37">{escape(system)}</text>')
    begin = y
    for row, cells in ratios.items():
        middle = y + _BAR * len(cells) / 2 + 4
        parts.append(f'<text x="{_LEFT - 8}" y="{middle:.0f}" text-anchor="end">{escape(row)}</text>')
        for system, ratio in cells.items():
            length = min(ratio, _MOST) / _MOST * _WIDTH
            colour = COLOURS[systems.index(system)]
            parts.append(f'<rect x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_BAR - 2}" fill="{colour}"/>')
            parts.append(f'<text x="{_LEFT + length + 4:.1f}" y="{y + 8}" font-size="9">{ratio:.2f}</text>')
            y += _BAR
        y += _GAP
    one = _LEFT + _WIDTH / _MOST
    parts.append(f'<line x1="{one:.1f}" y1="{begin - 4}" x2="{one:.1f}" y2="{y - _GAP}" stroke="#444"/>')
    head = f'<text x="{_LEFT}" y="16" font-size="13">{escape(title)}</text>'
    size = f'width="{_LEFT + _WIDTH + 60}" height="{y}"'
    style = 'font-family="sans-serif" font-size="11"'
    background = '<rect width="100%" height="100%" fill="white"/>'
    body = "\n".join([background, head, *parts])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n{body}\n</svg>\n'
