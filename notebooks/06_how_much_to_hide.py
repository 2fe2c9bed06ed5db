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
# # How much to hide
#
# The paper hides 80 % of both. This map shows what that means for the network that ships: its error at every pair of ratios,
# and beside it the best of the opponents at that very place. Where the opponent wins, arithmetic knew as much.

# %%
from mask3d_viz import architecture

architecture("masks")

# %%
from mask3d_viz import ask

ask("How much depth must be hidden for Mask3D to gain most over the best opponent, in proportion?", "80 %",
    choices=("20 %", "80 %", "100 %"), because="A quarter less error there. With little hidden, interpolation is "
    "nearly as good; with everything hidden, this small network knows little that the training rooms' mean does not.")

# %% [markdown]
# Click a cell, and every other explorer of this session goes there. Hatched cells are lost. The band is over frames.

# %%
from mask3d_viz import explore_ratios, open_session

session = open_session()
explorer = explore_ratios(session)
explorer

# %% [markdown]
# ## The numbers
#
# From the map that ships (eight sample rooms, three masks each), AbsRel over hidden measured pixels, 80 % of colour hidden.
# Along the other axis the map is flat: as long as some depth is visible, this network does not care how much colour it sees.

# %% tags=["nbval-check-output"]
from mask3d_core.evaluation.ratio_map import RatioMap
from mask3d_core.shipped import shipped

found = RatioMap.load(shipped("data", "ratio_maps") / "tiny_rooms.json")
print("depth hidden  Mask3D     best opponent")
for place in found.places:
    rgb, depth = found.ratios(place)
    against = found.compare(place, "abs_rel")
    if rgb == 0.8 and against is not None:
        own = found.estimate(place, "Mask3D", "abs_rel").mean
        print(f"{depth:11.0%}    {own:.3f}     {against.opponent.mean:.3f} {against.best:16} Mask3D {against.words}")

# %% [markdown]
# ## How sure is it?
#
# Draw many masks at one pair of ratios: where the predictions for a hidden pixel differ, the answer hangs on which patches
# happened to be visible. That spread orders the errors rather well: where it is large, look twice. **It is no posterior**: a
# network can be wrong with all masks alike, and of that the spread says nothing.

# %% tags=["nbval-check-output"]
from mask3d_core.evaluation.uncertainty import measure_mask_spread

model, _ = session.model()
spread = measure_mask_spread(model, session.batch(0), (0.8, 0.8), draws=12)
print(f"rank correlation of spread with error: {spread.correlation:.1f}")

# %% [markdown]
# *The paper's*: that hiding is the lesson; that both ratios were varied one by one is reported by others. *Ours*: 80 % of each,
# the map over both with its opponents, the spread over masks, and every number here.
