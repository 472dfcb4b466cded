"""Boxes, arrows and text as SVG, for the pictures of the guides."""

from __future__ import annotations

from dataclasses import dataclass
from xml.sax.saxutils import escape

GROUND, PANEL, EDGE, INK, QUIET = "#12161a", "#1d242b", "#3a4650", "#e8edf0", "#9aa7b0"
PICTURE, CONTROL = "#43a5ad", "#d9a441"
"""Colours of arrows that carry pictures, and of those that carry control messages."""

FONT = "font-family='system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif'"
LINE = 20


@dataclass(frozen=True, slots=True)
class Box:
    """A program or a setting.

    Attributes:
        key: the name by which arrows refer to it.
        x, y: upper left corner.
        title: first line, large.
        lines: further lines; text between backquotes is set in a fixed-width font.
        w: width.
    """

    key: str
    x: int
    y: int
    title: str
    lines: tuple[str, ...] = ()
    w: int = 250

    @property
    def h(self) -> int:
        """Height that its lines need."""
        return 44 + LINE * len(self.lines) + (6 if self.lines else 0)


@dataclass(frozen=True, slots=True)
class Arrow:
    """An arrow from one box to another, with a label.

    Attributes:
        start, end: keys of the boxes.
        label: what is sent.
        colour: `PICTURE` or `CONTROL`.
        shift: how far from the middle of the boxes' sides it runs, in pixels; keeps two arrows apart.
    """

    start: str
    end: str
    label: str
    colour: str = PICTURE
    shift: int = 0


@dataclass(frozen=True, slots=True)
class Machine:
    """A dashed frame around the boxes of one computer."""

    x: int
    y: int
    w: int
    h: int
    title: str


@dataclass(frozen=True, slots=True)
class Diagram:
    """One picture."""

    title: str
    w: int
    h: int
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...] = ()
    machines: tuple[Machine, ...] = ()


def svg(diagram: Diagram) -> str:
    """The picture as SVG."""
    parts = [_machine(m) for m in diagram.machines]
    by_key = {b.key: b for b in diagram.boxes}
    parts += [_box(b) for b in diagram.boxes]
    parts += [_arrow(by_key[a.start], by_key[a.end], a) for a in diagram.arrows]
    legend = ""
    if diagram.arrows:
        y = diagram.h - 14
        legend = (
            f"<rect x='20' y='{y - 9}' width='22' height='4' fill='{PICTURE}'/>{text(50, y - 2, 'picture', 12, QUIET)}"
            f"<rect x='120' y='{y - 9}' width='22' height='4' fill='{CONTROL}'/>"
            f"{text(150, y - 2, 'control messages', 12, QUIET)}"
        )
    return page(diagram.w, diagram.h, diagram.title, "".join(parts) + legend)


def page(w: int, h: int, title: str, body: str) -> str:
    """An SVG document with a title for screen readers."""
    heads = "".join(
        f"<marker id='{name}' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='4.5' markerHeight='4.5' orient='auto'>"
        f"<path d='M0 0 8 4 0 8z' fill='{colour}'/></marker>"
        for name, colour in (("picture", PICTURE), ("control", CONTROL), ("wire", QUIET))
    )
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {w} {h}' width='{w}' height='{h}' role='img' {FONT}>"
        f"<title>{escape(title)}</title><defs>{heads}</defs>"
        f"<rect width='{w}' height='{h}' rx='10' fill='{GROUND}'/>{body}</svg>\n"
    )


def text(x: float, y: float, words: str, size: int = 14, colour: str = INK, anchor: str = "start") -> str:
    """One line of text; text between backquotes is set in a fixed-width font."""
    spans = []
    for i, part in enumerate(words.split("`")):
        if part:
            mono = " font-family='ui-monospace, Menlo, Consolas, monospace' fill='#ffffff'" if i % 2 else ""
            spans.append(f"<tspan{mono}>{escape(part)}</tspan>")
    return (
        f"<text x='{x:g}' y='{y:g}' font-size='{size}' fill='{colour}' text-anchor='{anchor}' xml:space='preserve'>"
        f"{''.join(spans)}</text>"
    )


def panel(x: int, y: int, w: int, h: int, fill: str = PANEL, edge: str = EDGE) -> str:
    """A rounded rectangle."""
    return f"<rect x='{x}' y='{y}' width='{w}' height='{h}' rx='8' fill='{fill}' stroke='{edge}'/>"


def _machine(m: Machine) -> str:
    return (
        f"<rect x='{m.x}' y='{m.y}' width='{m.w}' height='{m.h}' rx='12' fill='none' stroke='{EDGE}' "
        f"stroke-dasharray='6 5'/>{text(m.x + 14, m.y + 22, m.title, 13, QUIET)}"
    )


def _box(b: Box) -> str:
    lines = "".join(text(b.x + 14, b.y + 54 + LINE * i, line, 13, QUIET) for i, line in enumerate(b.lines))
    return panel(b.x, b.y, b.w, b.h) + text(b.x + 14, b.y + 28, b.title, 16) + lines


def _arrow(a: Box, b: Box, arrow: Arrow) -> str:
    forward = b.x > a.x
    x1, x2 = (a.x + a.w, b.x) if forward else (a.x, b.x + b.w)
    y1 = a.y + min(a.h, b.h) / 2 + arrow.shift if abs(a.y - b.y) < 20 else a.y + a.h / 2 + arrow.shift
    y2 = y1 if abs(a.y - b.y) < 20 else b.y + b.h / 2 + arrow.shift
    name = "picture" if arrow.colour == PICTURE else "control"
    middle = (x1 + x2) / 2
    curve = f"M{x1:g} {y1:g} C{middle:g} {y1:g} {middle:g} {y2:g} {x2:g} {y2:g}"
    if y1 == y2:
        label = text(middle, y1 - 8, arrow.label, 12, arrow.colour, "middle")
    else:
        label = text(
            x1 + (14 if forward else -14), y1 - 10, arrow.label, 12, arrow.colour, "start" if forward else "end"
        )
    return (
        f"<path d='{curve}' fill='none' stroke='{arrow.colour}' stroke-width='2.5' marker-end='url(#{name})'/>{label}"
    )
