"""An admitted request → all of its pieces, for whoever is no HTTP client that may go away."""

from collections.abc import Callable

from api.errors import ApiError
from api.requests.admission import Admitted
from api.requests.generation import Generation, Piece
from api.state import State


async def collect(
    state: State,
    admitted: Admitted,
    add: Callable[[int, Piece], None],
    unwanted: Callable[[], bool] = lambda: False,
) -> None:
    """Give each piece to `add`, with the index of its answer, until all have ended. A request that
    is left early may be come back for, unless it is `unwanted` by then. Raises ApiError."""
    ended = False
    try:
        async for pieces in Generation(state.inflight, admitted).pieces():
            for index, piece in pieces:
                add(index, piece)
        ended = True
    except ApiError:
        ended = True
        raise
    finally:
        over = ended or unwanted()
        (state.inflight.done if over else state.inflight.gone)(admitted.ongoing)
