"""What is deployed on a server: deployments by name, and what they work on."""

from typing import Annotated

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from pydantic import Field

from models.profiles import load_profile
from storage.errors import InputError
from storage.vocabulary import Vocabulary, load_vocabulary

DeploymentName = Annotated[str, Field(pattern=r"^[^/]+/[^/]+$")]
"""Name of a deployment, as `flow/deployment`."""


def read_deployment(client: SyncPrefectClient, name: str) -> DeploymentResponse:
    """A deployment.

    Args:
        client: Of the server.
        name: As `flow/deployment`.

    Raises:
        InputError: There is none of that name.
    """
    try:
        return client.read_deployment_by_name(name)
    except (ObjectNotFound, ValueError) as error:
        message = (
            f"there is no deployment {name!r}: run 'magicseg up' or 'prefect deploy --all', or "
            "name another one"
        )
        raise InputError(message) from error


def deployed_vocabulary(client: SyncPrefectClient, name: str) -> Vocabulary:
    """The vocabulary of the profile that a deployment states.

    Raises:
        InputError: There is no such deployment or profile.
    """
    profile = str(read_deployment(client, name).parameters.get("profile", "miniature"))
    return load_vocabulary(load_profile(profile).vocabulary)
