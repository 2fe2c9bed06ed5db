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
# # Reconstruct in three dimensions
#
# A depth picture hides its faults: an edge that is half a metre off is one pixel of another shade. As a cloud, from the
# side, it cannot hide them. Truth and prediction stand under one camera; turn one and the other follows.

# %%
from mask3d_viz import architecture

architecture("clouds")

# %% [markdown]
# The clouds open coloured by **provenance**: blue was seen, orange was hidden and predicted, pink was never measured.
# Then switch to colour, to depth, to the signed error. The curtain wipes from truth to prediction.

# %%
from mask3d_viz import explore_depth, open_session

session = open_session(depth_ratio=0.9)
session.change(frame=min(4, len(session.frames) - 1))
explore_depth(session)

# %% [markdown]
# ## Does it bring back a thing that it never saw?
#
# On the table stands a box. Hide all of its depth and show all of the colour: if the network can read colour, the box
# comes back. If it cannot, the table goes on where the box was.

# %%
from mask3d_core.sources import open_source
from mask3d_viz.lab import SAMPLE_ROOMS
from mask3d_viz.notebook import picture
from mask3d_viz.predictions import Predictions
from mask3d_viz.reconstruction import cloud_stills

session = open_session(open_source("rooms", **SAMPLE_ROOMS), frame=5, depth_ratio=0.0)
box = session.object_at(171)
hidden = session.hide_object(171)
result = Predictions(session).now().reconstruction
off = 100 * (result.prediction - result.depth)[box & result.is_valid]
print(f"{len(hidden)} depth patches hidden; on the box the prediction is {off.mean():+.1f} cm off on average")
picture(cloud_stills(result, mode="rgb"), "truth and prediction with the box's depth hidden")

# %% [markdown]
# It does not: the table goes on where the box stood, and the number is the height of the box. `mask3d pretrain` on a GPU is the
# place to change that; the README says what this small checkpoint does and does not do with colour.

# %% [markdown]
# To take the clouds along: **PLY** under the explorer, or `mask3d reconstruct CHECKPOINT FRAME --out DIR`. Where Open3D has
# a display, "open in Open3D" shows them in a window of its own.
#
# *The paper's*: dense depth from masked colour and depth. *Ours*: this picture of it; flying pixels at depth steps are left
# out on both sides alike, and the numbers count them all the same.
