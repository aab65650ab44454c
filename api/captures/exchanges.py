"""What was captured of a deployment: looked at, forgotten, turned into a dataset."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import delete
from sqlmodel import Session, col, select

from api.errors import bad_request
from api.registry import datasets
from api.state import State
from loraplex.compare_and_set import changed
from loraplex.datasets import MAX_ROW, mistake
from loraplex.entities import CapturedExchange, Dataset, Deployment

_PAGE = 500
BASE = "base"


def newest(
    session: Session, tenant: str, deployment: Deployment, most: int, before: int | None = None
) -> list[CapturedExchange]:
    wanted = select(CapturedExchange).where(*_of(tenant, deployment))
    if before is not None:
        wanted = wanted.where(col(CapturedExchange.id) < before)
    return list(session.exec(wanted.order_by(col(CapturedExchange.id).desc()).limit(most)))


def forget(session: Session, tenant: str, deployment: Deployment) -> int:
    """All of it: how many they were."""
    gone = changed(session, delete(CapturedExchange).where(*_of(tenant, deployment)))
    session.commit()
    return gone


def as_dataset(
    state: State, tenant: str, deployment: Deployment, name: str, answers_of: str
) -> Dataset:
    """What was asked, with the answers of one version, its own or as a shadow; of all of them where
    it is empty. Raises ApiError."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        rows = kinds = 0
        for row in _rows(state, tenant, deployment, answers_of):
            line = json.dumps(row, ensure_ascii=False)
            if len(line) > MAX_ROW or mistake(row):  # calls of tools, say
                continue
            file.write(line + "\n")
            kinds |= 1 if "messages" in row else 2
            rows += 1
        file.flush()
        if not rows:
            raise bad_request("Nothing was captured that it could be made of.", "answers_of")
        if kinds == 3:
            message = "Chats and prompts were captured: forget them, and capture one kind."
            raise bad_request(message, "deployment")
        return datasets.add(state, tenant, name, f"{name}.jsonl", Path(file.name))


def _rows(
    state: State, tenant: str, deployment: Deployment, answers_of: str
) -> Iterator[dict[str, Any]]:
    """The oldest first."""
    seen = 0
    while True:
        with Session(state.database) as session:
            wanted = select(CapturedExchange).where(
                *_of(tenant, deployment), col(CapturedExchange.id) > seen
            )
            page = session.exec(wanted.order_by(col(CapturedExchange.id)).limit(_PAGE)).all()
        for each in page:
            seen = each.id or seen
            own = answers_of in ("", each.adapter or BASE)
            answer = each.answer if own else each.shadows.get(answers_of)
            if answer:
                yield _row(each.asked, answer)
        if len(page) < _PAGE:
            return


def _row(asked: dict[str, Any], answer: str) -> dict[str, Any]:
    if "prompt" in asked:
        return {"prompt": asked["prompt"], "completion": answer}
    said = {"role": "assistant", "content": answer}
    return {"messages": [*asked["messages"], said]}


def _of(tenant: str, deployment: Deployment) -> tuple[Any, Any]:
    return (
        col(CapturedExchange.tenant_id) == tenant,
        col(CapturedExchange.deployment_id) == deployment.id,
    )
