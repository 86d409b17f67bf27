# SPDX-License-Identifier: Apache-2.0
"""The delays that `test_qos.py` measured, as a picture: for each stream p50 to p99 as a bar, before and after."""

import math

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 640, 300, 60, 40, 60
LEAST_MS, MOST_MS = 0.1, 1_000.0
COLOURS = {"before": "#c2553a", "after": "#2f6f9f"}


def height(ms):
    """Where a delay stands on the logarithmic scale, from the top."""
    share = math.log(max(ms, LEAST_MS) / LEAST_MS) / math.log(MOST_MS / LEAST_MS)
    return HEIGHT - BOTTOM - min(share, 1.0) * (HEIGHT - TOP - BOTTOM)


def draw(before, after):
    """SVG of two runs: {stream: (p50, p99)} in milliseconds."""
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
             f'font-size="12"><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
             f'<text x="{LEFT}" y="20">Delay through a tunnel of 10 Mbit/s offered 20: p50 to p99, milliseconds</text>']
    for ms in (0.1, 1, 10, 100, 1000):
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{height(ms):.1f}" y2="{height(ms):.1f}" stroke="#ddd"/>'
                     f'<text x="{LEFT - 6}" y="{height(ms) + 4:.1f}" text-anchor="end">{ms:g}</text>')
    step = (WIDTH - LEFT - 20) / len(before)
    for place, name in enumerate(before):
        middle = LEFT + step * (place + 0.5)
        for shift, label, run in ((-28, "before", before), (28, "after", after)):
            top, bottom = height(run[name][1]), height(run[name][0])
            parts.append(f'<rect x="{middle + shift - 18:.1f}" y="{top:.1f}" width="36" '
                         f'height="{max(bottom - top, 2):.1f}" fill="{COLOURS[label]}"/>')
            parts.append(f'<text x="{middle + shift:.1f}" y="{top - 5:.1f}" text-anchor="middle">'
                         f'{run[name][1]:.3g}</text>')
        parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{name}</text>')
    for place, (label, text) in enumerate((("before", "one queue"), ("after", "voice first, 60 / 40"))):
        x = LEFT + place * 160
        parts.append(f'<rect x="{x}" y="{HEIGHT - 22}" width="12" height="12" fill="{COLOURS[label]}"/>'
                     f'<text x="{x + 18}" y="{HEIGHT - 12}">{text}</text>')
    return "\n".join([*parts, "</svg>\n"])
