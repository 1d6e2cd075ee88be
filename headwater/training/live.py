"""Show a training while it runs: on a page of this machine, and in the notebook that started it."""

from __future__ import annotations

import sys
import threading
from typing import Any

import transformers

from headwater.console import Pace, say
from headwater.network.page_server import Server
from headwater.results.live import LiveView

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>headwater: training</title></head><body><main id="view">The first step is not logged yet.</main>
<p id="state" role="status"></p>
<script>
async function update() {
  const state = document.getElementById("state");
  try {
    const reply = await fetch("pair", {method: "POST", headers: {"Content-Type": "application/json"}, body: "{}"});
    const found = await reply.json();
    if (found.html) document.getElementById("view").innerHTML = found.html;
    state.textContent = "";
    if (found.ended) return;
  } catch { state.textContent = "The training does not answer: it has ended, or was stopped."; }
  setTimeout(update, 1000);
}
update();
</script></body></html>
"""
"""The page asks every second; what it shows is escaped where it is written."""


class BackgroundServer(Server):
    """A server in a thread of its own, which ends with the training."""

    def service_actions(self) -> None:
        """Leave signals to the training."""


def in_notebook() -> bool:
    """Return whether this program runs in a notebook, which shows HTML."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None


class ShowLive(transformers.TrainerCallback):  # type: ignore[misc]
    """Shows loss, rewards, accuracy and the time left after every logging step."""

    def __init__(self, title: str, page: bool, inline: bool) -> None:
        """Serve a page, show the view in the notebook, or both."""
        self.view = LiveView(title, (), 0, 1)
        self._rows: list[dict[str, Any]] = []
        self._pace: Pace | None = None
        self._inline = inline
        self._handle: Any = None
        self._server = BackgroundServer(PAGE, lambda _: self._answer()) if page else None

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Start the page, and print its address."""
        if self._server is not None:
            threading.Thread(target=self._server.serve_forever, args=(0.2,), daemon=True).start()
            say(f"live: {self._server.address}")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **others: Any) -> None:
        """Add a row and show the view."""
        step, steps = state.global_step, state.max_steps
        self._pace = self._pace or Pace(steps, step)  # begins after the first step, which is slower than the others
        self._rows.append({"step": step, **(logs or {})})
        self._show(LiveView(self.view.title, tuple(self._rows), step, steps, self._pace.left(step)))

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Show the end, and stop the page once it had time to read it."""
        self._show(LiveView(self.view.title, tuple(self._rows), state.global_step, state.max_steps, ended=True))
        if self._server is not None:
            threading.Timer(3.0, self._server.shutdown).start()

    def _show(self, view: LiveView) -> None:
        self.view = view
        if not self._inline:
            return
        from IPython.display import display  # type: ignore[import-not-found,unused-ignore]

        if self._handle is None:
            self._handle = display(view, display_id=True)
        else:
            self._handle.update(view)

    def _answer(self) -> dict[str, Any]:
        return {"html": self.view._repr_html_() if self.view.rows else "", "ended": self.view.ended}
