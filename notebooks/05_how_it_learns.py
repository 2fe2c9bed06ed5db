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
# # How it learns
#
# A network of a few hundred thousand numbers, rooms that it never sees twice, two CPU cores, forty seconds. It begins worse
# than the laziest answer there is (the mean of what is visible) and passes it before your eyes. Then one sees how far it
# still has to go.

# %%
from mask3d_viz import architecture

architecture("training")

# %%
from mask3d_viz import ask

ask("After how many of the 90 steps does it beat the mean of the visible depth?", 30, 0, 90, "steps", digits=0)

# %% [markdown]
# **Start** trains in a process of its own at low priority, so that the sliders stay quick; closing the notebook does not end
# it, and coming back finds it again. Stop saves; Resume goes on. The flat line in the chart of errors is the mean.

# %%
from mask3d_viz import open_session, start_run, watch
from mask3d_viz.runs import lesson_config

run = start_run("runs/lesson", config=lesson_config(), fresh=True)
session = open_session(checkpoint=run.wait_for_weights())
watch(run, session)

# %% [markdown]
# ## Your hand on it while it learns
#
# Every explorer can follow a run: its weights are loaded again whenever the run writes new ones. Hide patches here, and see
# the same masks answered better from one moment to the next.

# %%
from mask3d_viz import explore_masks

session.change(frame=4)
explore_masks(session)

# %% [markdown]
# This cell holds the notebook for up to forty seconds and both views above stay live. Ctrl-C ends the waiting, not the run.

# %%
status = run.wait(40)
scores = [(r["step"], r["eval"]) for r in run.log.records if "abs_rel" in r.get("eval", {})]
for step, found in scores:
    print(f"step {step:3}: AbsRel {found['abs_rel']:.3f}   (mean of the visible depth: {found['abs_rel_of_the_mean']:.3f})")

# %%
from mask3d_viz.notebook import picture

run.stop() if status.can_stop else None
run.wait(30)
panel = watch(run)
picture(panel.still(), "loss, error and a film of fixed frames")

# %% [markdown]
# The film strip in the panel above scrubs back to step 0: first grey noise, then the mean, then a floor and a far wall. What the
# shipped checkpoint adds took 144,000 frames and 71 minutes; the paper's network takes days on GPUs.
