"""The family tree: generations as columns, or where those do not fit, as an indented list."""

from __future__ import annotations

from dataclasses import dataclass, field

from regrow.report.drawing import Box, Drawing, shorten, text_width
from regrow.report.family import Family, Member
from regrow.report.format import amount, decimals, percent
from regrow.report.plots import colour_class
from regrow.report.record import number

BOX_HEIGHT = 88.0
_BOX_WIDTH = 190.0
_GAP = 64.0
_BESIDE = 12.0
_BETWEEN = 26.0
_ABOVE = 30.0
_SIDE = 26.0
_INDENT = 22.0
_SIZE = 12.0


@dataclass(slots=True)
class Node:
    """One model in the tree: what hangs below it, and what stands beside it for comparison."""

    member: Member
    depth: int = 0
    children: list[Node] = field(default_factory=list)
    beside: list[Member] = field(default_factory=list)


@dataclass(slots=True)
class Layout:
    """Where each box stands, by the member's index."""

    boxes: dict[int, Box] = field(default_factory=dict)
    edges: list[tuple[int, int]] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0
    is_list: bool = False


def forest(family: Family) -> list[Node]:
    """Every member exactly once, whatever its parent and twin claim to be."""
    placed: set[int] = set()
    # Where members share a twin, it stands beside the first.
    beside: dict[int, list[Member]] = {}
    for member in family.members:
        if member.is_scratch:
            continue
        others = [m for m in family.beside(member) if m.index not in placed]
        others = [m for m in others if not family.children(m) and m.parent is None]
        beside[member.index] = others
        placed |= {m.index for m in others}

    def grow(member: Member, depth: int) -> Node:
        placed.add(member.index)
        node = Node(member, depth, beside=beside.get(member.index, []))
        for child in family.children(member):
            if child.index not in placed:
                node.children.append(grow(child, depth + 1))
        return node

    tops = [m for m in family.members if m.parent is None]
    # The second round finds chains that have no top.
    return [grow(m, 0) for m in [*tops, *family.members] if m.index not in placed]


def columns(roots: list[Node]) -> Layout:
    """A generation a column; every subtree has a band of its own, so nothing can meet."""
    layout = Layout()

    def stack(node: Node) -> float:
        return BOX_HEIGHT + len(node.beside) * (BOX_HEIGHT + _BESIDE)

    def height(node: Node) -> float:
        below = sum(map(height, node.children)) + _BETWEEN * max(0, len(node.children) - 1)
        return max(stack(node), below)

    def place(node: Node, top: float) -> None:
        y = top
        for child in node.children:
            place(child, y)
            layout.edges.append((node.member.index, child.member.index))
            y += height(child) + _BETWEEN
        if node.children:
            ends = [layout.boxes[c.member.index].y for c in (node.children[0], node.children[-1])]
            middle = sum(ends) / 2
            top = max(top, min(middle, top + height(node) - stack(node)))
        x = node.depth * (_BOX_WIDTH + _GAP) + 1
        layout.boxes[node.member.index] = Box(x, top, _BOX_WIDTH, BOX_HEIGHT)
        for place_below, other in enumerate(node.beside, 1):
            y = top + place_below * (BOX_HEIGHT + _BESIDE)
            layout.boxes[other.index] = Box(x, y, _BOX_WIDTH, BOX_HEIGHT)
            layout.pairs.append((node.member.index, other.index))

    y = 1.0
    for root in roots:
        place(root, y)
        y += height(root) + _BETWEEN
    layout.height = y - _BETWEEN + 1
    layout.width = max((box.x + box.width for box in layout.boxes.values()), default=0.0) + 1
    return layout


def indented(roots: list[Node], width: float) -> Layout:
    """One model below the other, each generation a little further in.

    Where there is room, what stands beside a model for comparison stands to its right.
    """
    narrow = width < 640
    layout = Layout(width=width, is_list=True)
    deepest = max((depth for root in roots for depth in _depths(root)), default=0)
    room = width / 3 if narrow else width - 3 * _BOX_WIDTH - 2 * _SIDE - 2
    indent = min(_INDENT if narrow else 56.0, room / max(1, deepest))
    y = 1.0

    def place(node: Node) -> None:
        nonlocal y
        x = node.depth * indent + 1
        wide = width - x - 1 if narrow else _BOX_WIDTH
        layout.boxes[node.member.index] = Box(x, y, wide, BOX_HEIGHT)
        for position, other in enumerate(node.beside, 1):
            if narrow:
                # Further in than the model itself, whose children's line passes on the left.
                y += BOX_HEIGHT + _BESIDE
                box = Box(x + _INDENT, y, wide - _INDENT, BOX_HEIGHT)
            else:
                box = Box(x + position * (wide + _SIDE), y, wide, BOX_HEIGHT)
            layout.boxes[other.index] = box
            layout.pairs.append((node.member.index, other.index))
        y += BOX_HEIGHT + _ABOVE
        for child in node.children:
            layout.edges.append((node.member.index, child.member.index))
            place(child)

    for root in roots:
        place(root)
    layout.height = y - _ABOVE + 2
    return layout


def _depths(node: Node) -> list[int]:
    return [node.depth, *(depth for child in node.children for depth in _depths(child))]


def draw_tree(family: Family, width: float) -> Drawing:
    """The family: who was made from whom by which verb, twins dashed beside their siblings."""
    roots = forest(family)
    layout = columns(roots)
    if layout.width > width:
        layout = indented(roots, width)
    drawing = Drawing(layout.width, layout.height, "Family tree")
    for above, below in layout.edges:
        draw = _edge_down if layout.is_list else _edge_across
        draw(drawing, layout.boxes[above], layout.boxes[below], family.members[below].verb)
    for one, other in layout.pairs:
        a, b = layout.boxes[one], layout.boxes[other]
        if b.y == a.y:
            drawing.line(b.x - _SIDE, b.y + b.height / 2, b.x, b.y + b.height / 2, "edge beside")
        else:
            drawing.line(b.x + 18, b.y - _BESIDE, b.x + 18, b.y, "edge beside")
    colours = family.colours()
    for index, box in layout.boxes.items():
        _box(drawing, box, family, family.members[index], colours[index])
    return drawing


def _edge_down(drawing: Drawing, above: Box, below: Box, verb: str) -> None:
    """Down from the parent, into the child's side; the verb stands over the child."""
    x, y = above.x + 9, below.y + BOX_HEIGHT / 2
    if below.x > x + 4:
        drawing.path(["M", x, above.y + BOX_HEIGHT, "V", y, "H", below.x], "edge")
    else:  # so deep that there is no room to go further in
        drawing.line(x, below.y - _ABOVE, x, below.y, "edge")
    if verb:
        text = shorten(verb, below.width - 24, _SIZE)
        drawing.text(below.x + 16, below.y - 9, text, size=_SIZE, css="muted", tip=verb)


def _edge_across(drawing: Drawing, above: Box, below: Box, verb: str) -> None:
    """From the parent's right side to the child's left, the verb on the last stretch."""
    x0, y0 = above.x + above.width, above.y + BOX_HEIGHT / 2
    x1, y1 = below.x, below.y + BOX_HEIGHT / 2
    bend = x0 + 7
    drawing.path(["M", x0, y0, "H", bend, "V", y1, "H", x1], "edge")
    if verb:
        text = shorten(verb, x1 - bend - 5, 11)
        drawing.text(x1 - 5, y1 - 6, text, size=11, anchor="end", css="muted", tip=verb)


def _box(drawing: Drawing, box: Box, family: Family, member: Member, colour: int) -> None:
    css = "box scratch" if member.is_scratch else "box"
    drawing.rect(box, css, radius=6)
    bar = Box(box.x, box.y + 10, 4, box.height - 20)
    drawing.rect(bar, f"bar {colour_class(colour)}")
    left, right = box.x + 16, box.x + box.width - 12
    room = right - left
    kind = shorten(member.kind, room, 11)
    drawing.text(left, box.y + 20, kind, size=11, css="muted", tip=member.kind)
    name = shorten(member.name, room, 14, bold=True)
    drawing.text(left, box.y + 38, name, size=14, bold=True, tip=member.name)
    count = member.number("non_embedding_parameters")
    if count is not None:
        share = family.share_of_base(member)
        is_base = family.base is not None and family.base.index == member.index
        part = percent(share) if share is not None and not is_base else ""
        words = shorten(f"{amount(count)} parameters", room - text_width(part, _SIZE) - 6, _SIZE)
        drawing.text(left, box.y + 59, words, size=_SIZE)
        if part:
            drawing.text(right, box.y + 59, part, size=_SIZE, anchor="end", css="muted")
    bits = number(member.bits.get("all"))
    if bits is not None:
        words = shorten(f"{decimals(bits)} bits per byte", room, _SIZE)
        drawing.text(left, box.y + 76, words, size=_SIZE)
