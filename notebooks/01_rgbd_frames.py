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
# # Frames with depth
#
# An RGB-D frame is a colour picture and, for each pixel, how far away what one sees there is. Three things go wrong with
# such frames again and again: the *unit* of the depth, the *holes* in it, and the *camera*. This notebook shows what each of
# the three does, on rendered rooms that were seen through a simulated Kinect.

# %%
from mask3d_viz import architecture

architecture("frames")

# %%
from mask3d_core.sources import open_source

source = open_source("rooms", count=4, seed=99, pool="test", views_per_room=1, sensor=1.0)
frame = source.read(1)
frame

# %% [markdown]
# ## Units: depth is metres, always
#
# Cameras store depth as whole numbers: millimetres, fifths of a millimetre, disparity. Inside this project depth is float32
# metres and nothing else, so one look at the range tells whether the unit was right: a room is a few metres deep.

# %%
import numpy as np

measured = frame.depth[frame.is_valid]
print(f"{frame.width} x {frame.height} pixels, {frame.color.dtype} colour, {frame.depth.dtype} depth")
print(f"nearest {measured.min():.2f} m, median {np.median(measured):.2f} m, farthest {measured.max():.2f} m")

# %% [markdown]
# ## Holes: "not measured" is not zero metres
#
# Where the sensor got no answer (edges, black or shining things, grazing angles, too far) there is *no* depth. Such a
# pixel must neither be averaged nor scored, and it is something else than a patch that *we* hide.

# %%
from mask3d_viz import ask

holes = 100 * float((~frame.is_valid).mean())
ask("What share of this frame did the sensor not measure?", holes, 0, 60, "%")

# %%
from mask3d_viz.drawing import contact_sheet
from mask3d_viz.images import depth_image
from mask3d_viz.notebook import picture
from mask3d_viz.pixels import patches_with_depth

fitted = frame.fit(240, 320)
empty = ~patches_with_depth(fitted.is_valid, (15, 20))
print(f"{holes:.1f} % of the pixels were not measured;",
      f"{empty.sum()} of {empty.size} patches hold no measured pixel at all")
seen = depth_image(fitted.depth, fitted.is_valid)
picture(contact_sheet([fitted.color, seen], ["colour", "depth; hatched: never measured"], 2), "a rendered room")

# %% [markdown]
# ## The camera: without it there is no space
#
# Four numbers say which direction each pixel looks in: focal lengths and the centre, in pixels. With them a pixel becomes a
# point: x = (column − cx) · depth / fx, y = (row − cy) · depth / fy.

# %%
import torch

from mask3d_core.geometry import unproject

row, column = 60, 200
camera = fitted.intrinsics
by_hand = np.array([(column - camera.cx) * fitted.depth[row, column] / camera.fx,
                    (row - camera.cy) * fitted.depth[row, column] / camera.fy, fitted.depth[row, column]])
points = unproject(torch.from_numpy(fitted.depth)[None], torch.from_numpy(camera.as_array())[None])[0].numpy()
print("by hand   ", by_hand.round(3))
print("unproject ", points[row, column].round(3))
assert np.allclose(by_hand, points[row, column], atol=1e-5)

# %% [markdown]
# With a wrong camera the picture looks the same, and the room is another one. Below: the right focal length, and half
# of it. Corners that should be right angles are none any more; no loss would ever complain.

# %%
from dataclasses import replace

from mask3d_viz.clouds import cloud_from_depth, linked_stills

wrong = replace(camera, fx=camera.fx / 2, fy=camera.fy / 2)
clouds = [cloud_from_depth(fitted.depth, fitted.is_valid, c, fitted.color) for c in (camera, wrong)]
captions = ("from above, right camera", "from above, half the focal length")
picture(linked_stills(*clouds, view="top", size=(360, 480), captions=captions), "one frame, two cameras")

# %% [markdown]
# ## The truth in space
#
# Turn it: the holes are shadows behind things, seen from the side. `session.change(frame=...)` goes to another frame,
# `open_session("path/to/recording")` to your own.

# %%
from mask3d_viz import explore_depth, open_session

frames = [source.read(i) for i in range(4)]
session = open_session(frames, frame=1, depth_ratio=0.0, rgb_ratio=0.0, color_mode="rgb")
explore_depth(session)

# %% [markdown]
# *The paper's*: RGB-D frames of ScanNet, 2.5 million of them. *Ours*: rooms that are rendered, because those frames cannot
# be handed on; the sensor's holes and steps are simulated.
