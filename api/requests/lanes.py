"""Where a deployment's requests are: its lane, and those of the base models that it had before."""

from sqlmodel import Session, col, select

from api.errors import ApiError
from api.requests.models import ServedModel
from api.state import State
from loraplex.entities import Deployment, Revision
from loraplex.keys import Lane


def lanes_of(state: State, deployment: Deployment) -> list[Lane]:
    """The one that serves first, then the newest. What a former one still runs is finished there,
    and its journal is kept for its clients."""
    with Session(state.database) as session:
        models = session.exec(
            select(Revision.base_model)
            .where(Revision.deployment_id == deployment.id)
            .order_by(col(Revision.number).desc())
        ).all()
    former = [Lane(model, deployment.id) for model in models]
    return list(dict.fromkeys([deployment.lane, *former]))


def served_by(state: State, lane: Lane) -> ServedModel:
    """Raises ApiError when the base model isn't here."""
    folder = state.models.find(lane.base_model)
    if folder is None:
        reason = f"The base model {lane.base_model!r} is not here any more."
        raise ApiError(503, "deployment_pending", reason, retry_after_s=5)
    return state.served.load(folder)
