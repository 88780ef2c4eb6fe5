"""What the explorer's server answers: the page, questions about samples, pictures, and changes."""

from http import HTTPStatus
from importlib.resources import files
from typing import Annotated, Any, Literal

from fastapi import BackgroundTasks, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic_core import to_json

from flows.explorer.curation import Change, Choice, ManyChange, Undo
from flows.explorer.descriptions import picture_type
from flows.explorer.explorer import IGNORED_PIXELS, Explorer
from storage.errors import EngineError, InputError, TransientError

_PAGES = files("flows.explorer").joinpath("pages")
_FILES = {
    "": ("explore.html", "text/html; charset=utf-8"),
    "explore.css": ("explore.css", "text/css; charset=utf-8"),
    "list.js": ("list.js", "text/javascript; charset=utf-8"),
    "sample.js": ("sample.js", "text/javascript; charset=utf-8"),
    "common.js": ("common.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
_KEPT = {"cache-control": "private, max-age=3600"}
"""Pictures are asked for together with the version of their shard."""

_Question = Annotated[str, Query(max_length=16_000)]
_Start = Annotated[int, Query(ge=0, lt=2**40)]
_Count = Annotated[int, Query(ge=1, le=500)]
_ClassName = Annotated[str, Query(pattern=f"^([0-9]{{1,5}}|{IGNORED_PIXELS})$")]


def make_application(explorer: Explorer) -> FastAPI:
    """The application that answers for a dataset; whoever may ask it is decided elsewhere."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(EngineError, _explain)
    app.add_exception_handler(RequestValidationError, _explain)
    _add_page(app)
    _add_questions(app, explorer)
    _add_pictures(app, explorer)

    _add_changes(app, explorer)
    return app


def _add_page(app: FastAPI) -> None:
    def give(name: str, kind: str) -> None:
        content = _PAGES.joinpath(name).read_bytes()
        path = next(path for path, (file, _) in _FILES.items() if file == name)

        @app.get(f"/{path}", name=name)
        def file() -> Response:
            return Response(content, media_type=kind)

    for name, kind in _FILES.values():
        give(name, kind)


def _add_questions(app: FastAPI, explorer: Explorer) -> None:
    @app.get("/api/dataset")
    def dataset() -> Response:
        return _json(explorer.refresh())

    @app.get("/api/samples")
    def samples(query: _Question = "{}", start: _Start = 0, count: _Count = 60) -> Response:
        return _json(explorer.find(query, start, count))

    @app.get("/api/facts")
    def facts(keys: _Question) -> Response:
        return _json(explorer.facts(keys.split(",")))

    @app.get("/api/samples/{key}")
    def sample(key: str) -> Response:
        return _json(explorer.sample(key))


def _add_changes(app: FastAPI, explorer: Explorer) -> None:
    def answer(described: dict[str, Any], later: BackgroundTasks) -> Response:
        later.add_task(explorer.curator.bring_card_up_to_date)
        return _json(described)

    @app.post("/api/change")
    def change(wanted: Change, later: BackgroundTasks) -> Response:
        return answer(explorer.change(wanted), later)

    @app.post("/api/outlook")
    def outlook(wanted: Choice) -> Response:
        return _json(explorer.outlook(wanted))

    @app.post("/api/changes")
    def changes(wanted: ManyChange, later: BackgroundTasks) -> Response:
        return answer(explorer.change_many(wanted), later)

    @app.post("/api/undo")
    def undo(wanted: Undo, later: BackgroundTasks) -> Response:
        return answer(explorer.undo(wanted), later)


def _add_pictures(app: FastAPI, explorer: Explorer) -> None:
    @app.get("/api/samples/{key}/thumbnail")
    def small(key: str) -> Response:
        return _picture(explorer.thumbnail(key), "image/jpeg")

    @app.get("/api/samples/{key}/mask")
    def mask(key: str, name: _ClassName) -> Response:
        return _picture(explorer.mask(key, name), "image/png")

    @app.get("/api/samples/{key}/{kind}")
    def picture(key: str, kind: Literal["image", "counterfactual"]) -> Response:
        data = explorer.picture(key, kind)
        return _picture(data, picture_type(data, f"{kind} of {key}") if data else "")


def _picture(data: bytes, kind: str) -> Response:
    if not data:
        return _json({"error": "there is no such picture"}, HTTPStatus.NOT_FOUND)
    return Response(data, media_type=kind, headers=_KEPT)


def _json(value: Any, status: HTTPStatus = HTTPStatus.OK) -> Response:
    data = to_json(value, inf_nan_mode="null")
    return Response(data, status, media_type="application/json")


def _explain(_request: Request, error: Exception) -> Response:
    """Say in words what went wrong."""
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        place = ".".join(str(each) for each in first.get("loc", ()))
        return _json({"error": f"{place}: {first.get('msg')}"}, HTTPStatus.BAD_REQUEST)
    if isinstance(error, TransientError):
        return _json({"error": str(error)}, HTTPStatus.SERVICE_UNAVAILABLE)
    status = (
        HTTPStatus.BAD_REQUEST
        if isinstance(error, InputError)
        else HTTPStatus.INTERNAL_SERVER_ERROR
    )
    return _json({"error": str(error)}, status)
