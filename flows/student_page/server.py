"""Serves the page of a student until it is interrupted."""

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, runtime_checkable

from flows.page_addresses import PageAddress
from storage.errors import InputError

INSTALL_APP = "pip install 'magicseg-engine[app]'"

_QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_SSR_MODE": "False",
}
"""Read by Gradio when it is imported or builds a page."""
_FONTS = ("system-ui", "Arial", "sans-serif")
_MONO = ("ui-monospace", "Consolas", "monospace")
_PATIENCE_SECONDS = 1
_STYLE = Path(__file__).with_name("data") / "page.css"


@contextmanager
def quiet_gradio() -> Iterator[Path]:
    """Import Gradio so that it tells nobody anything and leaves nothing behind.

    Returns:
        A folder for uploads and pictures, removed at the end.

    Raises:
        InputError: If Gradio is not installed; says how to install it.
    """
    with tempfile.TemporaryDirectory(prefix="magicseg-page-") as folder:
        # Before the import, which reads them all.
        os.environ.update(_QUIET | {"GRADIO_TEMP_DIR": folder})
        try:
            import gradio  # noqa: F401 - whether it is there
        except ImportError as error:
            message = f"the page needs gradio ({error}): run `{INSTALL_APP}`"
            raise InputError(message) from error
        yield Path(folder)


@runtime_checkable
class ServedPage(Protocol):
    """A page that can be served."""

    def build(self) -> Any:
        """Lay it out as Gradio's Blocks."""
        ...

    def leave(self) -> None:
        """Let what is at work end soon: nobody looks any more."""
        ...


def serve(
    page: ServedPage, address: PageAddress, listening: socket.socket, tell: Callable[[str], None]
) -> None:
    """Serve a page until an interruption; inside `quiet_gradio`.

    Args:
        page: The page.
        address: Where.
        listening: What `PageAddress.listen` gave.
        tell: Told where the page is, once it can be reached.

    Raises:
        KeyboardInterrupt: When it was interrupted and everything is closed.
    """
    application = _application(page.build(), address)
    place = listening.getsockname()
    shown = f"[{place[0]}]" if ":" in place[0] else place[0]
    tell(f"http://{shown}:{place[1]}")
    _run(application, listening, page.leave)


def _application(blocks: Any, address: PageAddress) -> Any:
    import gradio
    from fastapi import FastAPI
    from gradio.themes import Default

    from flows.student_page.door import PageDoor
    from flows.student_page.looking import MOST_BYTES

    theme = Default(font=list(_FONTS), font_mono=list(_MONO))
    inside = gradio.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        blocks,
        path="/",
        server_name=address.host,
        server_port=address.port,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=MOST_BYTES,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme,
        css=_STYLE.read_text(encoding="utf-8"),
    )
    return PageDoor(inside, address.names)


def _run(application: Any, listening: socket.socket, leave: Callable[[], None]) -> None:
    import uvicorn

    class Leaving(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            leave()  # the process ends when its threads have
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        application,
        log_level="critical",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_PATIENCE_SECONDS,
    )
    Leaving(config).run(sockets=[listening])
