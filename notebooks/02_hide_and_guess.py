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
# # Hide and guess: you are the model
#
# The network's whole lesson is this game: some patches are hidden; say how far away they are. Play it once yourself before
# you judge what the network does. What you see is what it sees: a fifth of the colour and a tenth of the depth.

# %%
from mask3d_viz import architecture

architecture("masks")

# %% [markdown]
# Set the five sliders to the depth of the five numbered patches, then press **reveal**. "Cheat" shows all of the colour:
# does it help you? It is the very thing that pre-training hopes the network learns to use.

# %%
from mask3d_viz import guess_depth, open_session

session = open_session(depth_ratio=0.9)
game = guess_depth(session)
game

# %% [markdown]
# Without a player everybody says the mean of what is visible. These are the errors of that lazy answer, of a smooth surface
# through the visible depth, and of Mask3D, over the same five patches:

# %%
for name, error in sorted(game.reveal().items(), key=lambda item: -item[1]):
    print(f"{'the lazy player' if name == 'you' else name:22} {error:6.1f} cm")

# %% [markdown]
# ## Now with your hand on the masks
#
# Drag the two ratios, paint, choose another colour for the network to see. The table beside names the best answer: where
# a surface through the visible depth wins, the network has learned nothing that arithmetic did not know.

# %%
from mask3d_viz import ask

ask("All colour is visible, no depth at all. Is the prediction better or worse than the mean of the training rooms?",
    truth="better", choices=("better", "worse"), because="0.433 against 0.539 AbsRel on 120 rooms that it never saw; "
    "but grey pictures do as well as coloured ones: it has learned where rooms are deep, not to read colour.")

# %%
from mask3d_viz import explore_masks

session.change(depth_ratio=0.8)
explore_masks(session)

# %% [markdown]
# The same mask at every ratio: patches are ranked once by the seed, and a slider moves the line between hidden and seen.
# So what was seen at 90 % is still seen at 80 %.

# %%
from mask3d_viz.predictions import Predictions

predictions = Predictions(session)
print("depth hidden   Mask3D   best of the opponents   (AbsRel over hidden measured pixels, this one frame)")
for ratio in (0.5, 0.8, 0.9, 0.95):
    session.change(depth_ratio=ratio)
    shown = predictions.now()
    best = shown.best_opponent
    print(f"{ratio:11.0%} {shown.reconstruction.scores['abs_rel']:10.3f}   {shown.opponents[best]['abs_rel']:.3f} ({best})")

# %% [markdown]
# *The paper's*: patches of colour and of depth are hidden, and dense depth is the answer; that each has a ratio of its own is
# reported by others. *Ours*: the game, the ratios and how patches are ranked, the opponents, and every number here.
