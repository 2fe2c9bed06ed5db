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
# # How much of the third dimension does an encoder hold?
#
# Any plain vision transformer can be asked, frozen, without fine-tuning: are depth, the tilt of surfaces and the names of
# things written in its patches so plainly that a matrix reads them off, and do two views of one place look alike to it?
# Useful also to whoever never pre-trains anything: `mask3d probe timm:<name>`, and with weights from a file of anybody's,
# `mask3d probe timm:vit_base_patch16_224.mae@mae_pretrain_vit_base.pth`.

# %%
from mask3d_viz import architecture

architecture("rgb encoder")

# %% [markdown]
# ## What was recorded
#
# The bench: fixed rooms, the same for everyone; the rows below took 11 minutes of one CPU core. The shipped encoders stand
# beside a network of noise in the shape of the first, raw pixels, position alone and the trivial answer. `micro` and `tiny` are
# Mask3D, each with an MAE of the same frames beside it. Depth and normals favour encoders that were trained to predict depth, by
# construction. All of it is ours; the paper has no such table.

# %%
import json

from mask3d_core.shipped import shipped
from mask3d_viz.bench_view import bench_figure
from mask3d_viz.curves import figure_image
from mask3d_viz.notebook import picture
from mask3d_viz.pixels import resize_smooth

path = shipped("results", "bench_cpu.json")
recorded = json.loads(path.read_text()) if path.is_file() else None
if recorded is None:
    print("No recorded bench came with this copy (results/bench_cpu.json); `mask3d probe CKPT` makes one.")
else:
    print(f"{recorded['command']}, {recorded['date']}: {recorded['frames']['words']}")

# %%
def shown(values):
    """The bench's figure at the width of a page."""
    figure = figure_image(bench_figure(values))
    return picture(resize_smooth(figure, (round(figure.shape[0] * 900 / figure.shape[1]), 900)),
                   "each encoder and each opponent, task by task")


shown(recorded) if recorded else None

# %% [markdown]
# `tiny` was mostly shown a fifth of the colour, and its decoder a smooth surface through the depth: colour was never needed, and its
# encoder came out below noise in three of the four tasks. `micro`, a seventh of its size, saw all of the colour and a fifth of the depth, no surface, and rooms that
# are painted as homes are: what was hidden it had to read off the picture. A matrix reads normals off it, and off no other row,
# better than off raw pixels.

# %%
from mask3d_viz import ask

ask("Which opponent must an encoder beat before one may say that it has *learned* anything?", "the same network of noise",
    choices=("the trivial answer", "raw pixels", "the same network of noise"),
    because="A network of noise already mixes pixels and position into features that a matrix can use. Whatever it scores was "
    "given by the architecture; only what lies above it came from training.")

# %% [markdown]
# ## A small one, live
#
# The same readers and rules on a few dozen of our rendered frames, smaller pictures, one layer. Forty frames to fit on are
# few: the intervals are wide, and the order of the rows may well be another one on your machine's next store.

# %%
from mask3d_core.evaluation.bench import BenchConfig, bench_encoders, store_frames, untrained_twin
from mask3d_core.evaluation.features import RGBEncoder
from mask3d_core.models.starts import open_start
from mask3d_core.prepare import PrepareConfig, prepare
from mask3d_core.sources import open_source
from mask3d_viz.lab import SHIPPED_ENCODER

rooms = open_source("rooms", count=72, seed=5001, views_per_room=2, height=112, width=144)
store = prepare(rooms, "stores/labelled_rooms", PrepareConfig(112, 144, val_share=0.2, test_share=0.25), progress=False)
config = BenchConfig(size=(96, 128), cell=8, layers=1, strengths=(1e-3, 1e-1), class_strengths=(1e-2,), class_steps=20,
                     neighbours=(5, 20))
start = open_start(str(SHIPPED_ENCODER), config.size)
twin = untrained_twin(start, config.size)
pretrained, untrained = (RGBEncoder(each.vit, each.color_mean, each.color_std, name)
                         for each, name in ((start, "shipped"), (twin, "noise")))
result = bench_encoders({"shipped": pretrained}, store_frames(store.path, config), config,
                        opponents={"untrained, same shape": untrained})
shown(result.as_dict())

# %%
for task, readout in (("depth", "linear"), ("normals", "linear"), ("semantics", "linear")):
    difference = result.difference("shipped", "untrained, same shape", task, readout)
    print(f"{task:10} shipped minus untrained: {difference}")

# %% [markdown]
# Errors are better low (depth, normals), mIoU is better high, and an interval that holds 0 tells nothing apart. With frames
# of your own, labelled or not: `mask3d probe timm:vit_small_patch16_224 --data STORE`.
#
# *The paper's*: it compares encoders by fine-tuning them. *Ours*: reading frozen features instead, the readers, the opponents, the
# frames, and every number here.
