"""MLflow's basic-auth app behind a wall: no login names a place for the server to read or write.

`mlflow server --app-name remote-mlflow`. Out of the box whoever has a login may make an experiment
at `s3://BUCKET/mlflow-backups` or `file:///home`, or a model version with such a source, and have
the server read and write there with its own rights. guard.py refuses such names (places.py says
which), door.py what MLflow would answer with an error of its own. All else passes untouched, in
turn (turns.py), and with fewer questions to the databases (database.py).

It lies read-only beside the release and is found by PYTHONPATH; without it the server does not
start, since no app has this name.
"""

import gc


def create_app():
    """Return the app that uvicorn serves; MLflow's is imported here, where it is needed."""
    from mlflow.environment_variables import MLFLOW_ENABLE_WORKSPACES
    from mlflow.server import app, auth
    from sqlalchemy.orm import Session

    from . import database, direct, door, files, guard, turns, unqueued

    database.set_once(Session)
    guarded = auth.create_app(app)
    database.ask_for_admin(auth)
    guard.stand(app)
    guarded.add_exception_handler(RecursionError, too_deep)
    files.stand(guarded)
    guarded.add_exception_handler(Exception, failed)
    workspaces = MLFLOW_ENABLE_WORKSPACES.get()
    unqueued.stand(guarded)
    find_validator = None if workspaces else getattr(auth, "_find_fastapi_validator", None)
    inner = direct.before(guarded, app, failed, find_validator)
    if turns.of_sqlite():
        inner = turns.Turns(inner)
    # What is loaded now stays: Python need not look through all of it for what does not.
    gc.freeze()
    return door.Door(inner, workspaces)


async def too_deep(request, error):
    from starlette.responses import JSONResponse

    message = "This request is nested too deeply."
    return JSONResponse({"error_code": "INVALID_PARAMETER_VALUE", "message": message}, 400)


async def failed(request, error):
    """Answer for what FastAPI's routes raise; starlette raises it again, for the log."""
    from starlette.responses import PlainTextResponse, Response

    from . import mistakes

    if mistakes.is_mistake(error):
        return Response(mistakes.told(error), 400, media_type="application/json")
    return PlainTextResponse("Internal Server Error", 500)
