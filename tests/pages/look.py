#!/usr/bin/env python3
"""Looks at the pages that cache-sim writes, in a headless Chromium, as a person would.

    look.py --sim-bin target/debug/cache-sim
    look.py --sim-bin target/debug/cache-sim --keep /tmp/pages     leaves pages and pictures there

Writes a page of `cache-sim size` and one of `cache-sim curve`, opens each on a wide and on a narrow screen, light
and dark, and checks what was painted: the ground has the scheme's colour, every curve's colour is there, there is
text, and nothing sticks out sideways. Prints `N passed, N failed` and exits with 0 only if nothing failed; with 3 where
no Chromium is installed.
"""

import argparse
import collections
import html
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
NO_CHROMIUM = 3
LIMIT_S = 120
WIDE, NARROW, HEIGHT = 1000, 400, 1500

# As sim/src/plot/shape.rs and sim/src/html.rs have them.
GROUNDS = {"light": (255, 255, 255), "dark": (18, 22, 28)}
INKS = {"light": (28, 36, 48), "dark": (230, 234, 240)}
COLOURS = {
    "light": [(0, 114, 178), (213, 94, 0), (0, 158, 115), (181, 88, 143), (154, 125, 0)],
    "dark": [(74, 168, 224), (240, 128, 60), (46, 196, 154), (224, 156, 196), (242, 204, 60)],
}
# preferredColorScheme of Blink's settings.
SCHEMES = {"light": 1, "dark": 0}

# Appended to a copy of the page: what only the browser knows, written where --dump-dom shows it.
PROBE = """<script>
const seen = (name) => [...document.querySelectorAll(name)].filter((it) => it.offsetParent !== null).length;
const sticking = [...document.querySelectorAll("body *")].filter((it) => {
  const inner = it.closest(".scroll");
  return (!inner || inner === it) && it.getBoundingClientRect().right > innerWidth + 0.5;
}).map((it) => it.tagName + "." + it.getAttribute("class"));
const small = [...document.querySelectorAll("svg text")].filter((it) => it.getBoundingClientRect().width > 0)
  .filter((it) => it.getBoundingClientRect().height < 11).length;
document.body.append("PROBE " + JSON.stringify({
  width: innerWidth, scroll: document.documentElement.scrollWidth, sticking,
  dark: matchMedia("(prefers-color-scheme: dark)").matches,
  wide: seen(".wide"), narrow: seen(".narrow"), small,
}) + " EBORP");
</script>"""


def chromium():
    named = os.environ.get("CHROMIUM")
    found = [named] if named else [shutil.which(name) for name in NAMES]
    return next((path for path in found if path), None)


class Browser:
    """One Chromium, started anew for each look."""

    def __init__(self, program, folder):
        self.program = program
        self.folder = folder

    def run(self, page, width, scheme, *flags):
        command = [
            self.program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
            "--force-device-scale-factor=1", f"--user-data-dir={self.folder / 'profile'}",
            f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}", f"--window-size={width},{HEIGHT}",
            *flags, page.as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, timeout=LIMIT_S, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{self.program}: exit code {done.returncode}: {done.stderr.decode()[-500:]}")
        return done.stdout.decode()

    def picture(self, page, width, scheme):
        path = self.folder / f"{page.stem}-{width}-{scheme}.png"
        self.run(page, width, scheme, f"--screenshot={path}")
        return Picture(path.read_bytes())

    def probe(self, page, width, scheme):
        probed = page.with_name(f"{page.stem}-probed.html")
        probed.write_text(page.read_text().replace("</body>", PROBE + "</body>"))
        # A window is never narrower than 500 or so; a frame in it is.
        frame = page.with_name(f"{page.stem}-frame.html")
        frame.write_text(
            f'<!DOCTYPE html><meta name="color-scheme" content="light dark"><body style="margin:0">'
            f'<iframe id="it" style="border:0;width:{width}px;height:{HEIGHT}px" src="{probed.name}"></iframe><script>'
            'onload = () => document.body.append(it.contentDocument.body.textContent.match(/PROBE .* EBORP/)[0])</script>'
        )
        flags = ("--allow-file-access-from-files", "--dump-dom", "--virtual-time-budget=2000")
        shown = self.run(frame, max(width, 600), scheme, *flags)
        return json.loads(html.unescape(re.findall(r"PROBE (\{.*?\}) EBORP", shown)[-1]))


class Picture:
    """A PNG of 8 bits a channel, without interlacing, as Chromium writes it."""

    def __init__(self, data):
        assert data[:8] == b"\x89PNG\r\n\x1a\n", "no PNG"
        at, packed = 8, b""
        while at < len(data):
            (length,) = struct.unpack(">I", data[at:at + 4])
            kind, body = data[at + 4:at + 8], data[at + 8:at + 8 + length]
            if kind == b"IHDR":
                self.width, self.height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", body)
                assert depth == 8 and colour in (2, 6) and interlace == 0, "a PNG of another kind"
                self.channels = 3 if colour == 2 else 4
            elif kind == b"IDAT":
                packed += body
            at += 12 + length
        self.rows = list(self.unfiltered(zlib.decompress(packed)))

    def unfiltered(self, raw):
        step, length = self.channels, self.width * self.channels
        above = bytearray(length)
        for number in range(self.height):
            start = number * (length + 1)
            kind, row = raw[start], bytearray(raw[start + 1:start + 1 + length])
            if kind == 1:
                for i in range(step, length):
                    row[i] = (row[i] + row[i - step]) & 255
            elif kind == 2:
                for i in range(length):
                    row[i] = (row[i] + above[i]) & 255
            elif kind == 3:
                for i in range(length):
                    left = row[i - step] if i >= step else 0
                    row[i] = (row[i] + (left + above[i]) // 2) & 255
            elif kind == 4:
                for i in range(length):
                    a = row[i - step] if i >= step else 0
                    b, c = above[i], above[i - step] if i >= step else 0
                    pa, pb, pc = abs(b - c), abs(a - c), abs(a + b - 2 * c)
                    row[i] = (row[i] + (a if pa <= pb and pa <= pc else b if pb <= pc else c)) & 255
            yield row
            above = row

    def colours(self):
        """How many pixels there are of each colour."""
        counts = collections.Counter()
        for row in self.rows:
            counts.update(zip(row[0::self.channels], row[1::self.channels], row[2::self.channels]))
        return counts


def near(counts, colour, reach=12):
    return sum(n for it, n in counts.items() if max(abs(a - b) for a, b in zip(it, colour)) <= reach)


class Checks:
    def __init__(self):
        self.passed, self.failed = 0, 0

    def that(self, holds, what, seen=""):
        if holds:
            self.passed += 1
        else:
            self.failed += 1
            print(f"FAILED: {what}: {seen}")


def look(browser, page, curves, checks):
    for scheme in SCHEMES:
        for width in (WIDE, NARROW):
            name = f"{page.name}, {scheme}, {width} wide"
            probed = browser.probe(page, width, scheme)
            checks.that(probed["width"] == width, f"{name}: the screen is as wide as meant", probed)
            checks.that(probed["dark"] == (scheme == "dark"), f"{name}: the scheme is as meant", probed)
            checks.that(probed["scroll"] <= width, f"{name}: it does not scroll sideways", probed)
            checks.that(not probed["sticking"], f"{name}: nothing sticks out", probed["sticking"])
            is_wide = probed["wide"] > 0 and probed["narrow"] == 0
            is_narrow = probed["narrow"] > 0 and probed["wide"] == 0
            checks.that(is_wide if width == WIDE else is_narrow, f"{name}: pictures fit the screen", probed)
            checks.that(probed["small"] == 0, f"{name}: letters in pictures can be read", probed)
        picture = browser.picture(page, WIDE, scheme)
        name = f"{page.name}, {scheme}"
        counts = picture.colours()
        pixels = picture.width * picture.height
        ground, ink = counts[GROUNDS[scheme]], near(counts, INKS[scheme], 40)
        checks.that(ground > 0.5 * pixels, f"{name}: the ground is the scheme's", f"{ground} of {pixels}")
        checks.that(tuple(picture.rows[0][:3]) == GROUNDS[scheme], f"{name}: up to the edge", picture.rows[0][:3])
        checks.that(0.002 * pixels < ink < 0.2 * pixels, f"{name}: there is text", f"{ink} of {pixels}")
        other = "dark" if scheme == "light" else "light"
        checks.that(counts[GROUNDS[other]] < 0.05 * pixels, f"{name}: and not the other's", counts[GROUNDS[other]])
        for number in range(curves):
            painted = near(counts, COLOURS[scheme][number])
            checks.that(painted > 150, f"{name}: curve {number} is painted", f"{painted} pixels")


def write_pages(sim, folder):
    trace = ["--trace", str(ROOT / "tests/data/cloudphysics-io.oracleGeneral.zst")]
    size = folder / "size.html"
    # Policies whose curves are apart, on this log.
    policies = ["--policy", "fifo,lru,lfu,s3fifo,wtinylfu", "--points", "24"]
    prices = ["--target-hit-ratio", "0.4", "--memory-price", "3", "--miss-cost", "0.4/M", *policies]
    curve = folder / "curve.html"
    for command in (
        [sim, "size", *trace, *prices, "--plot", str(size)],
        [sim, "curve", *trace, "--policy", "lru,sieve", "--sample", "8192", "--plot", str(curve)],
    ):
        subprocess.run(command, check=True, capture_output=True, timeout=LIMIT_S)
    return [(size, 5), (curve, 2)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sim-bin", required=True)
    parser.add_argument("--keep", type=pathlib.Path)
    arguments = parser.parse_args()
    program = chromium()
    if program is None:
        print(f"no Chromium: none of {', '.join(NAMES)} is installed, and CHROMIUM names none")
        return NO_CHROMIUM
    checks = Checks()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or pathlib.Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        browser = Browser(program, folder.resolve())
        for page, curves in write_pages(arguments.sim_bin, folder.resolve()):
            look(browser, page, curves, checks)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
