"""The explorer's server: on the loopback interface alone, until it is interrupted."""

import logging
import os
import sys
import threading
import webbrowser
from collections.abc import Callable
from functools import partial

import uvicorn

from flows.explorer.application import make_application
from flows.explorer.explorer import Explorer
from flows.explorer.guard import Guard
from flows.page_addresses import PageAddress
from storage.store import Store

_HOST = "127.0.0.1"
_PATIENCE_SECONDS = 2


def explore(root: str, *, port: int, browser: bool, say: Callable[[str], None]) -> None:
    """Serve the page of a dataset until this process is interrupted.

    Args:
        root: The dataset.
        port: Where to listen; 0 takes a free one.
        browser: Whether to open the page in the user's browser.
        say: Prints a line.

    Raises:
        InputError: There is no dataset, or the port is taken.
    """
    explorer = Explorer(Store.open(root))
    for problem in explorer.refresh()["problems"]:
        say(f"not shown: {problem}")
    guard = Guard(make_application(explorer))
    with PageAddress(_HOST, port).listen() as listener:
        origin = f"http://{_HOST}:{listener.getsockname()[1]}"
        say(f"exploring {root} at {origin}/{guard.token}/ - stop it with Ctrl-C")
        if browser and _has_window():
            # a browser that waits for the page must not keep the server from starting
            opening = partial(webbrowser.open, f"{origin}/open/{guard.opening}")
            threading.Thread(target=opening, daemon=True).start()
        server = uvicorn.Server(
            uvicorn.Config(
                guard,
                log_level="error",
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=_PATIENCE_SECONDS,
            )
        )
        # a connection that a browser keeps open is cut at the end, which is no error
        logging.getLogger("uvicorn.error").addFilter(lambda _: not server.should_exit)
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:
            say("stopped")
        finally:
            explorer.curator.bring_card_up_to_date()


def _has_window() -> bool:
    """Whether a browser would have a window; one of text would take our terminal."""
    if sys.platform != "linux":
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
