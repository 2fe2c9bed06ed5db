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
# # Where it looks, and what it owes to it
#
# Attention says where values were mixed *from*. Influence says what the answer *owes* to a patch: take the patch away, and
# see how many centimetres the prediction moves. (Taken away one at a time: what two patches both say, neither is needed for.)
# Everybody shows the first. Here they stand side by side.

# %%
from mask3d_viz import architecture

architecture("encoders")

# %%
from mask3d_viz import ask

ask("Nine tenths of both are hidden. What does a predicted patch owe most to?", truth="visible depth",
    choices=("visible colour", "visible depth", "both alike"),
    because="In this small checkpoint nearly everything comes from the depth around it; the explorer below shows how much.")

# %% [markdown]
# Click a patch. All visible patches are taken away in turn, once for all questions about this mask, so the first answer
# takes some seconds and the next ones none.

# %%
from mask3d_viz import explore_attention, open_session

session = open_session(depth_ratio=0.9, rgb_ratio=0.9, selection=(168,))
explorer = explore_attention(session)
explorer.worker.wait(120)
explorer

# %%
print(explorer.sentence())

# %% [markdown]
# ## Counterfactuals: whose colour?
#
# The same depth, with the frame's own colour, with grey, with another frame's, with its patches shuffled. If the numbers do
# not move, colour is not used, whatever the attention maps look like.

# %%
from mask3d_viz.predictions import Predictions
from mask3d_viz.session import COLOR_SOURCES

predictions = Predictions(session, with_opponents=False)
print(f"colour            depth 80 % hidden   all hidden     (AbsRel, mean over {len(session.frames)} frames)")
for source in COLOR_SOURCES:
    scores = []
    for ratio in (0.8, 1.0):
        found = []
        for frame in range(len(session.frames)):
            session.change(frame=frame, rgb_ratio=0.2, depth_ratio=ratio, color_source=source)
            found.append(predictions.now().reconstruction.scores["abs_rel"])
        scores.append(sum(found) / len(found))
    print(f"{source:17} {scores[0]:14.3f} {scores[1]:14.3f}")

# %% [markdown]
# *The paper's*: colour and depth meet in one decoder. *Ours*: influence by taking away, and the finding that this small
# checkpoint's colour encoder is a placeholder: it was trained on two CPU cores.
