"""The page: its tabs, its server, and what is left out of both. Nothing on it comes from another host."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import gradio as gr

from adapt import hardware
from adapt.demo import ask, features, runs, segment, students, zero_shot
from adapt.demo.desk import Desk, choices, embedded_student
from adapt.demo.request import Request
from adapt.plug import UserError
from adapt.recipe import Recipe

TABS: dict[str, Callable[[Desk], None]] = {
    "Zero-shot": zero_shot.build,
    "Segment": segment.build,
    "Features": features.build,
    "Ask": ask.build,
    "Students": students.build,
    "Runs": runs.build,
}
"""Title → what builds the tab, given the desk, inside its `gr.Tab`."""
STYLE, SCRIPT = (Path(__file__).with_name(name) for name in ("page.css", "page.js"))
TITLE = "Adapt"
LARGEST = "64mb"
"""Of a file that is uploaded."""
WAITING = 64
"""Questions that wait, of all visitors; who comes then is told that the queue is full."""
VISITORS = 200
"""Whose states (paths, words and marks, no pictures) are remembered; of more, the oldest are forgotten."""
TIDY = (600, 6 * 3600)
"""Seconds: how often, and after what time, files of visitors are removed."""
FONTS = ("ui-sans-serif", "system-ui", "sans-serif"), ("ui-monospace", "monospace")
"""Of the visitor's own machine."""


def page(desk: Desk) -> gr.Blocks:
    """All tabs, not served yet."""
    with gr.Blocks(analytics_enabled=False, title=TITLE, delete_cache=TIDY) as blocks:
        gr.HTML(f"<h1>{TITLE}</h1><p class=said>Vision foundation models on your own pictures, which stay on this machine.</p>")
        with gr.Tabs():
            for title, build in TABS.items():
                with gr.Tab(title):
                    build(desk)
    return blocks.queue(max_size=WAITING, api_open=False, default_concurrency_limit=max(2, hardware.cores()))


def serve(request: Request, recipe: Recipe | None = None) -> None:
    """Serve the page until Ctrl-C or SIGTERM, and say where it is.

    Args:
        recipe: whose models are shown beside the embedded ones.

    Raises:
        UserError: the checkpoint is none, or the port cannot be used.
    """
    desk = Desk([*choices(recipe, request.checkpoint, request.file), *embedded_student()])
    with served(desk, request) as address:
        print(f"Demo: {address}   (Ctrl-C ends it)", flush=True)
        if request.open:
            print(f"Anybody who reaches {request.host} can use it: set auth=FILE, or leave host= out.", flush=True)
        ends = threading.Event()
        before = signal.signal(signal.SIGTERM, lambda *_: ends.set())
        with suppress(KeyboardInterrupt):
            ends.wait()
        signal.signal(signal.SIGTERM, before)
    print("The demo has ended.")


@contextmanager
def served(desk: Desk, request: Request) -> Iterator[str]:
    """The page's address, while it is served; visitors' files lie in a folder of their own, which is removed at the end.

    Raises:
        UserError: the port is taken, or the host is no address of this machine.
    """
    with tempfile.TemporaryDirectory(prefix="adapt-demo-") as folder, _files_in(folder):
        blocks = page(desk)
        try:
            _, address, _ = blocks.launch(
                theme=gr.themes.Default(font=FONTS[0], font_mono=FONTS[1]),
                css_paths=STYLE,
                js=SCRIPT.read_text(encoding="utf-8"),
                server_name=request.host,
                server_port=request.port or _free(request.host),
                auth=list(request.people) or None,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                inbrowser=False,
                show_error=False,
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                strict_cors=True,
                mcp_server=False,
                ssr_mode=False,
                pwa=False,
                max_file_size=LARGEST,
                state_session_capacity=VISITORS,
            )
        except (OSError, ValueError) as error:
            raise UserError(
                f"port: {request.host}:{request.port} cannot be used ({_why(error)}). Try port=0, any free one."
            ) from None
        try:
            yield address
        finally:
            blocks.close(verbose=False)


@contextmanager
def _files_in(folder: str) -> Iterator[None]:
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = folder
    try:
        yield
    finally:
        os.environ.pop("GRADIO_TEMP_DIR")
        if before is not None:
            os.environ["GRADIO_TEMP_DIR"] = before


def _free(host: str) -> int:
    """A port that nobody uses."""
    with socket.socket() as one:
        one.bind((host, 0))
        return one.getsockname()[1]


def _why(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")[:120]
