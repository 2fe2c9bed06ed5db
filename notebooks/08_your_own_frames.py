# ---
# jupyter:
#   jupytext:
#     formats: py:percent,ipynb
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own frames: the data doctor
#
# Most failed trainings on RGB-D data fail before the first step: a wrong unit, holes stored as zero metres and taken for
# real, colour and depth from two cameras, the same room in training and test. `mask3d doctor` says so in words. Here is a
# recording with a fault, what the doctor says, and the same recording mended.

# %%
from mask3d_viz import architecture

architecture("frames")

# %% [markdown]
# A folder like one that a friend might send: numbered colour pictures, 16-bit depth. He says that depth is in metres per
# thousand; in truth his program wrote tenths of a millimetre.

# %%
import json
import tempfile
from pathlib import Path

from PIL import Image

from mask3d_core.sources import open_source

folder = Path(tempfile.mkdtemp()) / "recording"
rooms = open_source("rooms", count=8, seed=5, views_per_room=1, sensor=1.0)
for kind in ("color", "depth"):
    (folder / kind).mkdir(parents=True)
for number in range(len(rooms)):
    frame = rooms.read(number)
    Image.fromarray(frame.color).save(folder / "color" / f"{number:04}.png")
    Image.fromarray((frame.depth * 10_000).clip(0, 65535).astype("uint16")).save(folder / "depth" / f"{number:04}.png")
camera = [round(float(v), 3) for v in frame.intrinsics.as_array()]
described = {"color": "color/*.png", "depth": "depth/*.png", "depth_units_per_metre": 1000, "intrinsics": camera}
(folder / "mask3d_folder.json").write_text(json.dumps(described, indent=1))
print(json.dumps(described))

# %%
from mask3d_core.doctor import examine

report = examine(folder, sample=8)
print(report.text().replace(str(folder.parent), "..."))

# %% [markdown]
# The doctor sees that the range is none of a room, and names a unit that would make it one. That is a guess, and here a
# wrong one: 5000 is what two well-known data sets use, 10,000 is what our friend's program wrote. Only whoever wrote the
# files knows. Mend the description and ask again.

# %%
described["depth_units_per_metre"] = 10_000
(folder / "mask3d_folder.json").write_text(json.dumps(described, indent=1))
report = examine(folder, sample=8)
print(report.text().replace(str(folder.parent), "..."))

# %% [markdown]
# Now look at it. With `mask3d lab --frames DIR` the explorers of the other notebooks open your frames instead of ours.

# %%
from mask3d_viz import explore_masks, open_session

explore_masks(open_session(folder))

# %% [markdown]
# Next: `mask3d prepare auto DIR --out STORE` writes a store once, `mask3d plan --data STORE` says what a run would cost,
# `mask3d pretrain RUN --data STORE` runs it.
#
# *The paper's*: one RGB-D frame at a time, without pose, second view or reconstruction. *Ours*: the description of a folder, the
# doctor and its guesses, the store and the plan.
