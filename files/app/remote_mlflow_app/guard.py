"""Look at what a request names before MLflow's own handler does.

MLflow's routes with places are Flask's, so this is one more of Flask's hooks, after the one that
asks for the login: the route is found, the body is read and a login is known. Each message is read
by MLflow's own function, so what is looked at is what the handler gets, however it is spelt.
Where one of these names is gone from a release, the server does not start.
"""

import re

from flask import Response, current_app, json, request
from google.protobuf.json_format import ParseError
from mlflow.exceptions import MlflowException
from mlflow.protos.mlflow_artifacts_pb2 import (
    AbortMultipartUpload,
    CompleteMultipartUpload,
    CreateMultipartUpload,
)
from mlflow.protos.model_registry_pb2 import CreateModelVersion
from mlflow.protos.service_pb2 import (
    AttachModelToGatewayEndpoint,
    CreateExperiment,
    CreateGatewayEndpoint,
    CreateGatewayModelDefinition,
    CreateGatewaySecret,
    CreatePresignedDownloadUrl,
    CreatePresignedUploadUrl,
    CreateWorkspace,
    EndTrace,
    SetTraceTag,
    SetTraceTagV3,
    StartTrace,
    StartTraceV3,
    UpdateGatewayEndpoint,
    UpdateGatewayModelDefinition,
    UpdateGatewaySecret,
    UpdateWorkspace,
)
from mlflow.server import auth, handlers
from mlflow.store.artifact.utils.models import _parse_model_uri

from . import mistakes, places

API = "/api/2.0/mlflow"
# Parameters that are the path of an artifact, in a query or in the route itself.
PATHS = ("path", "artifact_path", "artifact_file_path", "artifact_directory_path")
CLOSED = frozenset({"_generate_demo"})  # a minute of work for anybody; only an admin may undo it


# What the AI gateway calls with whose key: an address of the provider is one that the server asks.
ADMINS = (
    AttachModelToGatewayEndpoint,
    CreateGatewayEndpoint,
    CreateGatewayModelDefinition,
    CreateGatewaySecret,
    UpdateGatewayEndpoint,
    UpdateGatewayModelDefinition,
    UpdateGatewaySecret,
)


def look(guarded, admins):
    """Refuse the request that is being handled, or return None."""
    try:
        if request.endpoint in CLOSED:
            return refused("The demo is closed on this server.", 403, "PERMISSION_DENIED")
        if request.endpoint in admins and not auth.sender_is_admin():
            return refused("Admins alone set up the AI gateway.", 403, "PERMISSION_DENIED")
        for name in PATHS:
            for path in (*request.args.getlist(name), (request.view_args or {}).get(name, "")):
                places.refuse_path(path)
        if found := guarded.get(request.endpoint):
            if not isinstance(handlers._get_normalized_request_json(), dict):
                return refused(UNREADABLE)
            message, check = found
            check(handlers._get_request_message(message()))
    except places.Refused as no:
        return refused(str(no))
    except MlflowException as no:
        return told(no)
    except (ParseError, TypeError, ValueError, AttributeError, KeyError):
        return refused(UNREADABLE)
    return None


JSON = "application/json"
STATE = "INVALID_STATE"
# Errors of MLflow's that are none of the server.
SAID = {
    b"Not a proper models:/ URI": 400,
    b"Trace data not stored in tracking store": 404,
    b"job execution feature is not enabled": 501,
    b"running without workspaces support": 501,
}
UNREADABLE = "This request cannot be read. Send one JSON object with the API's fields."


def refused(message, status=400, code="INVALID_PARAMETER_VALUE"):
    return Response(json.dumps({"error_code": code, "message": message}), status, mimetype=JSON)


def too_deep(error):
    """Answer for Python's own limit: a body of ten thousand brackets is the client's mistake."""
    return refused("This request is nested too deeply.")


def told(error):
    """Answer with what MLflow says: raised in a hook, Flask would call it an error of its own."""
    return Response(error.serialize_as_json(), error.get_http_status_code(), mimetype=JSON)


def soften(response):
    """Turn what MLflow takes for an error of the server into what it is."""
    if response.status_code in (500, 503) and not response.is_streamed:
        for words, status in SAID.items():
            if words in response.get_data():
                response.status_code = status
    return response


def status_of(known):
    """Return how MLflow's errors find their status: 400 where a mistake is behind a 500.

    So it is with what cannot be done to a thing in the state that it is in, such as a new name for
    an experiment that is deleted.
    """

    def status(error):
        found = known(error)
        mistaken = error.error_code == STATE or mistakes.is_caused(error)
        return 400 if found == 500 and mistaken else found

    return status


def mistaken(error):
    return Response(mistakes.told(error), 400, mimetype=JSON)


def check_experiment(message):
    places.refuse_location(message.artifact_location)


def check_workspace(message):
    places.refuse_location(message.default_artifact_root)
    places.refuse_location(message.trace_archival_config.location)


def check_version(message):
    """Refuse a source that the user could not read; the ids that stand beside it likewise."""
    source = message.source
    if source in places.PROMPTS:
        return
    if re.match("models:/[^/]", source) and not places.leads_out(source):
        named = _parse_model_uri(source)
        if named.model_id:
            return location_of_model(named.model_id)
        # Whoever may read a model may copy it, with the run that it names and whose it is.
        return asked("/registered-models/get", name=named.name)
    roots = []
    if message.run_id:
        roots.append(location_of_run(message.run_id))
    if message.model_id:
        roots.append(location_of_model(message.model_id))
    if source.startswith("runs:/") and not places.leads_out(source):
        return location_of_run(source[len("runs:/") :].split("/")[0])
    return places.refuse_source(source, roots)


def location_of_run(run):
    return asked("/runs/get", run_id=run)["run"]["info"]["artifact_uri"]


def location_of_model(model):
    places.refuse_path(model)
    return asked(f"/logged-models/{model}")["model"]["info"]["artifact_uri"]


def asked(path, **query):
    """Ask this server with the login of this request; Refused where it may not be read.

    So MLflow alone says who may read what, in each release by its own rules.
    """
    headers = {
        name: request.headers[name]
        for name in ("Authorization", "Host", "X-MLFLOW-WORKSPACE")
        if name in request.headers
    }
    answer = current_app.test_client().get(API + path, query_string=query, headers=headers)
    if answer.status_code != 200:
        raise places.Refused("This version's run or model is not there, or you may not read it.")
    return answer.get_json()


def check_trace(message):
    info = message.trace.trace_info
    experiment = info.trace_location.mlflow_experiment.experiment_id
    places.refuse_trace(info.trace_id, experiment, info.tags.items())


def check_tag(message):
    places.refuse_tag(message.key, message.value)


def check_tags(message):
    for tag in message.tags:
        check_tag(tag)


def check_path(message):
    places.refuse_path(message.path)


def check_file(message):
    """Refuse a client's file by its last part: where it lies there is nobody's matter here."""
    places.refuse_path(message.path.rpartition("/")[2])


def check_parts(message):
    """Refuse to complete an upload of nothing, which a store may take for an error of its own."""
    check_file(message)
    if not message.parts or not message.upload_id:
        raise places.Refused("An upload has an id and parts.")


CHECKS = {
    CreateExperiment: check_experiment,
    CreateModelVersion: check_version,
    CreateWorkspace: check_workspace,
    UpdateWorkspace: check_workspace,
    StartTraceV3: check_trace,
    StartTrace: check_tags,
    EndTrace: check_tags,
    SetTraceTag: check_tag,
    SetTraceTagV3: check_tag,
    CreatePresignedDownloadUrl: check_path,
    CreatePresignedUploadUrl: check_path,
    CreateMultipartUpload: check_file,
    CompleteMultipartUpload: check_parts,
    AbortMultipartUpload: check_file,
}


def stand(app):
    """Stand before all routes of MLflow's Flask app; KeyError where a handler is not there."""
    guarded = {
        handlers.HANDLERS[message].__name__: (message, check) for message, check in CHECKS.items()
    }
    admins = {handlers.HANDLERS[message].__name__ for message in ADMINS}
    app.before_request(lambda: look(guarded, admins))
    app.after_request(soften)
    app.register_error_handler(RecursionError, too_deep)
    app.register_error_handler(MlflowException, told)
    MlflowException.get_http_status_code = status_of(MlflowException.get_http_status_code)
    for kind in mistakes.KINDS:
        app.register_error_handler(kind, mistaken)
