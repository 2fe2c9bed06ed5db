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

# %% [markdown]
# **Start** trains in a process of its own at low priority, so that the sliders stay quick; closing the notebook does not end
# it. Stop saves; Resume goes on. (`fresh=True` begins anew whenever this cell is run; without it you come back to the run.)
# The flat line in the chart of errors is the mean; the pale dashes are the shipped run, on other frames (it leans on a smooth
# surface through the visible depth from its first step on).

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

session.change(frame=min(4, len(session.frames) - 1))
explore_masks(session)

# %% [markdown]
# This cell holds the notebook until the mean is beaten, and both views above stay live. Ctrl-C ends the waiting, not the run.

# %%
def is_better_than_the_mean(status):
    return status.metrics.get("abs_rel", 9) < status.metrics.get("abs_rel_of_the_mean", 0)


status = run.wait(150, until=is_better_than_the_mean)
scores = [(r["step"], r["eval"]) for r in run.log.records if "abs_rel" in r.get("eval", {})]
for step, found in scores:
    print(f"step {step:3}: AbsRel {found['abs_rel']:.3f}   (mean of the visible: {found['abs_rel_of_the_mean']:.3f})")

# %%
from mask3d_viz import ask

ask("The lesson's 90 steps see 720 frames. How many thousand frames did the shipped checkpoint see?", 144, 0, 300, "thousand",
    digits=0)

# %%
from mask3d_viz.notebook import picture

run.stop() if run.look().can_stop else None
run.wait(30)
panel = watch(run)
picture(panel.still(), "loss, error and a film of fixed frames")

# %% [markdown]
# The film strip in the panel above scrubs back to step 0: first grey noise, then the mean, then a floor and a far wall. What the
# shipped checkpoint adds took 144,000 crops of 6,272 frames and 71 minutes of two CPU cores.
#
# *The paper's*: the task, masked colour and depth in and dense depth out. *Ours*: loss, optimiser and schedule (the paper's are not
# known to us), the sizes, the rooms, and every number here.
