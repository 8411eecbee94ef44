"""A flame graph from the output of `perf script`: one box a function, as wide as its share of the samples."""

import html
import re
import zlib

WIDTH, ROW, MARGIN = 1200, 17, 10
# Boxes narrower than this are left out, in pixels.
WIDTH_MIN = 0.3
# Characters of a label are about this wide, in pixels.
LETTER = 6.6


def stacks(text):
    """Samples of `perf script -F comm,ip,sym,dso`: (thread, functions from the outermost in, whether each is the
    kernel's), in the order of the samples."""
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.strip()]
        if not lines:
            continue
        frames = []
        for line in lines[1:]:
            found = re.match(r"\s*[0-9a-f]+ (.*) \(([^()]*)\)\s*$", line)
            if found:
                frames.append((shortened(found[1]), "[kernel" in found[2]))
        if frames:
            yield lines[0].strip(), frames[::-1]


def shortened(symbol):
    """Without offsets, hashes of the compiler and generic arguments' insides."""
    symbol = re.sub(r"(\+0x[0-9a-f]+|::h[0-9a-f]{16})$", "", symbol)
    return symbol if len(symbol) <= 120 else symbol[:117] + "..."


def folded(samples):
    """A tree: function -> [samples, whether the kernel's, functions that it called]."""
    root = {}
    count = 0
    for thread, frames in samples:
        count += 1
        level = root
        for name, is_kernel in [(thread, False), *frames]:
            node = level.setdefault(name, [0, is_kernel, {}])
            node[0] += 1
            level = node[2]
    return root, count


def svg(title, samples):
    root, count = folded(samples)
    if not count:
        raise ValueError("no samples")
    scale = (WIDTH - 2 * MARGIN) / count
    boxes, depth = [], 0
    # (functions of a level, where it begins, how deep); no recursion: stacks may be deep.
    waiting = [(root, MARGIN, 0)]
    while waiting:
        level, x, row = waiting.pop()
        for name, (samples_here, is_kernel, below) in sorted(level.items()):
            width = samples_here * scale
            if width >= WIDTH_MIN:
                depth = max(depth, row + 1)
                boxes.append((name, is_kernel, x, row, width, samples_here))
                waiting.append((below, x, row + 1))
            x += width
    height = depth * ROW + 50
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">',
        "<style>text{font:11px monospace;fill:#111}.head{font:15px sans-serif;fill:#555}rect{stroke:#fff;stroke-width:.4}"
        "rect:hover{stroke:#000;stroke-width:1}@media (prefers-color-scheme:dark){.head{fill:#bbb}rect{stroke:#222}}</style>",
        f'<text class="head" x="{MARGIN}" y="20">{html.escape(title)}: {count:,} samples; blue is the kernel</text>',
    ]
    for name, is_kernel, x, row, width, samples_here in boxes:
        y = height - 10 - (row + 1) * ROW
        share = f"{name}: {100 * samples_here / count:.1f} %"
        letters = int((width - 4) / LETTER)
        label = name if len(name) <= letters else name[:letters - 1] + "…" if letters > 3 else ""
        lines.append(f'<g><title>{html.escape(share)}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 1}" '
                     f'fill="{color(name, is_kernel)}"/><text x="{x + 3:.1f}" y="{y + 12}">{html.escape(label)}</text></g>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def color(name, is_kernel):
    """The same for a function in every picture."""
    shade = zlib.crc32(name.encode()) % 40
    return f"hsl({205 + shade // 2},65%,{68 + shade // 4}%)" if is_kernel else f"hsl({10 + shade},85%,{62 + shade // 4}%)"


def top(samples, count):
    """The functions that most samples ended in: (share of all, name, whether the kernel's)."""
    ended = {}
    total = 0
    for _, frames in samples:
        total += 1
        ended[frames[-1]] = ended.get(frames[-1], 0) + 1
    best = sorted(ended.items(), key=lambda item: -item[1])[:count]
    return [(samples_here / total, name, is_kernel) for (name, is_kernel), samples_here in best]
