"""Which checkpoints are shown: A, and B beside it. One pair of lists over every explorer of a session."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets


class CheckpointPicker(widgets.Box):
    """Lists of the session's checkpoints; not there where there is nothing to choose.

    Args:
        explorer: whose session is followed and changed.
        compares: whether B means anything to it.
        nothing: what it says where no B is chosen.
        has_twin: no B is a choice of its own (A at step 0), so that B can be chosen with one checkpoint too.
    """

    def __init__(self, explorer: Any, compares: bool, nothing: str, has_twin: bool):
        super().__init__(layout=widgets.Layout(display="flex", flex_flow="row wrap", grid_gap="4px 18px"))
        self.explorer, self.nothing, self.has_twin = explorer, nothing, has_twin
        def choice(name: str, tip: str) -> widgets.Dropdown:
            return widgets.Dropdown(description=name, tooltip=tip, style={"description_width": "initial"},
                                    layout=widgets.Layout(width="280px"))

        self.first = choice("A" if compares else "checkpoint", "the checkpoint that is shown")
        self.second = choice("B", "what A is compared with, on the same frame and masks")
        self.is_comparing = compares
        self.children = [self.first, self.second] if compares else [self.first]
        with explorer.following():
            self.follow()
        self.first.observe(lambda change: explorer.wish(checkpoint=change["new"]), "value")
        self.second.observe(lambda change: explorer.wish(compare=change["new"]), "value")

    def follow(self) -> None:
        """Move to the session's state; a run that is followed has brought a new name."""
        session = self.explorer.session
        names = list(session.checkpoints)
        beside = [(self.nothing, ""), *((name, name) for name in names)]
        if list(self.first.options) != names:
            self.first.options = names
        if list(self.second.options) != beside:
            self.second.options = beside
        self.first.value, self.second.value = session.state.checkpoint, session.state.compare
        self.first.layout.display = None if len(names) > 1 else "none"
        self.layout.display = "flex" if len(names) > 1 or (self.has_twin and self.is_comparing) else "none"


__all__ = ["CheckpointPicker"]
