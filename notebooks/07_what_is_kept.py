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
# # What is kept
#
# After pre-training everything but the RGB encoder is thrown away. So the question is what *that* has learned, alone, from a
# whole picture. Three looks: what its features group together, which patches it finds alike, and how well depth can
# be read off it by a straight line.

# %%
from mask3d_viz import architecture

architecture("rgb encoder")

# %%
from mask3d_viz import ask

ask("Does this small checkpoint's RGB encoder know more of depth than it did at step 0?", "hardly",
    choices=("much more", "hardly"), because="In its own training the depth around a hidden patch said all that was needed. "
    "The colour encoder was never put under pressure: that takes a longer run, on a GPU.")

# %% [markdown]
# A is the checkpoint, B the same network at step 0; raw pixels stand beside them as the trivial answer. Colours are comparable:
# B's components are turned onto A's. Click a patch to see which patches of other rooms are nearest to it.

# %%
from mask3d_viz import explore_features, open_session

session = open_session(selection=(150,))
session.change(frame=min(3, len(session.frames) - 1))
explorer = explore_features(session)
explorer.worker.wait(60)
explorer

# %% [markdown]
# ## A ten-second probe
#
# A straight line from features to depth, fitted on some rooms and measured on others. An encoder that is worth keeping
# must beat raw pixels and their position.

# %%
explorer.run_probe()
explorer.prober.wait(120)
print("encoder                AbsRel   95 % interval over rooms")
for row in explorer.probe_table():
    print(f"{row['encoder']:22} {row['abs_rel']:.3f}   {row['low']:.3f} .. {row['high']:.3f}")

# %%
print(explorer.verdict())

# %% [markdown]
# *The paper's*: the RGB encoder alone is kept, and what follows sees colour only. *Ours*: the three looks, the probe with its
# opponents, and that this small encoder learned little; of the paper's own encoder that says nothing. What a recipe keeps that
# hides no colour at all: notebook 12.
