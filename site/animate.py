"""The README's moving picture of the Aligner, from the frames that `site/frames.js` took.

python site/animate.py FOLDER        (writes site/aligner.gif and site/static/aligner.png)
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
FIRST, EACH, LAST = 900, 220, 4000  # milliseconds


def main() -> None:
    folder = Path(sys.argv[1])
    frames = [Image.open(file).convert("RGB") for file in sorted(folder.glob("[0-9]*.png"))]
    size = max(frame.size for frame in frames)
    even = []
    for frame in frames:  # a line of the correction more takes more room
        even.append(Image.new("RGB", size, "white"))
        even[-1].paste(frame)
    few = [frame.quantize(64) for frame in even]
    times = [FIRST, *[EACH] * (len(few) - 2), LAST]
    few[0].save(HERE / "aligner.gif", save_all=True, append_images=few[1:], duration=times, loop=0)
    shutil.copyfile(folder / "aligner.png", HERE / "static" / "aligner.png")


if __name__ == "__main__":
    main()
