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
# # Start here
#
# A network sees a fifth of a picture's colour patches and a fifth of its depth patches, and has to say how far away
# *everything* is. Hide patches and see what it makes of the rest.
#
# 1. **Run the cell** (Shift + Enter).
# 2. **Drag a slider** under "RGB seen" or "Depth seen": the mask follows the hand, the prediction follows a moment later.
# 3. **Paint**: choose *hide* or *show* under a picture and draw on it. Undo takes a stroke back.
# 4. **Turn the clouds** below the pictures by dragging: truth and prediction move together.
# 5. **Point at a patch** anywhere, and it lights up everywhere, with its depth, its prediction and its error.
# 6. **Ask a patch**: click one, then *ask this patch*. Arrows come from the patches that its depth owes most to.

# %%
from mask3d_viz import explore, open_session

session = open_session()
explore(session)

# %% [markdown]
# The rooms are rendered and were in nobody's training data. Your own frames open the same way:
# `open_session("path/to/recording")`, and your own checkpoint with `open_session(..., checkpoint="runs/mine")`.
#
# To mail it to somebody without Python: `from mask3d_viz import report`, then `report(session, "page.html")` writes one HTML file
# in which the sliders, the clouds and the patches still work. For a projector: `explore(session, present=True)`.
#
# *The paper's*: colour and depth patches in, dense depth out, a ViT encoder that is kept for colour alone. *Ours*: the sizes,
# the loss, the rooms, and the smooth surface through the visible depth from which this small model starts.
