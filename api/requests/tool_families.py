"""How base models call tools, told from their chat templates: marks around JSON, by family.

Hermes and Qwen: https://github.com/NousResearch/Hermes-Function-Calling; Llama 3:
https://www.llama.com/docs/model-cards-and-prompt-formats/llama3_1/; Mistral:
https://docs.mistral.ai (version 3 of its tokenizer).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class ToolFamily:
    """`mark` says that a call comes ("": the answer begins with its JSON). In Lark: what is between
    the mark and a call, after it, and between two calls."""

    name: str
    mark: str
    opening: str = ""
    closing: str = ""
    between: str = ""
    each_is_marked: bool = False  # else one mark for all calls
    arguments: str = "arguments"  # their name in the JSON
    parallel: bool = True  # there may be several


FAMILIES = {
    family.name: family
    for family in (
        ToolFamily(
            *("hermes", "<tool_call>", r'"\n"', r'"\n</tool_call>"', r'"\n"'), each_is_marked=True
        ),
        ToolFamily("mistral", "[TOOL_CALLS]", '"["', '"]"', '"," " "?'),
        ToolFamily("llama3", "", arguments="parameters", parallel=False),
    )
}


def family_of(template: str) -> ToolFamily | None:
    """None: the template has no tools, or writes calls in a way that isn't known here."""
    if "tools" not in template or "[ARGS]" in template or "<function=" in template:
        return None  # the latter two write calls in other forms
    if "<tool_call>" in template:
        return FAMILIES["hermes"]
    if "[TOOL_CALLS]" in template:
        return FAMILIES["mistral"]
    if "<|start_header_id|>" in template and '"parameters"' in template:
        return FAMILIES["llama3"]
    return None


@dataclass(frozen=True, slots=True)
class ToolUse:
    """Of a request: functions as OpenAI's clients give them, and whether they must be called."""

    functions: Sequence[dict[str, Any]]
    required: bool = False  # at least one of them
    only: str | None = None  # this one
    parallel: bool = True  # several calls in one answer

    @property
    def shown(self) -> list[dict[str, Any]]:
        """As chat templates take them."""
        return [{"type": "function", "function": each} for each in self.functions]


def grammar(family: ToolFamily, use: ToolUse, tokenizer: Tokenizer) -> str:
    """Lark, as llguidance reads it: text or calls, or calls alone. Their arguments match the
    functions' schemas."""
    functions = [f for f in use.functions if use.only in (None, f["name"])]
    mark, is_token = _mark(family.mark, tokenizer)
    parallel = use.parallel and family.parallel
    more = f" ({family.between} body)*" * (parallel and not family.each_is_marked)
    call = f"{family.opening} body{more} {family.closing}"
    calls = f"{mark} {call}"
    if family.each_is_marked:
        calls += f" ({family.between} {calls})*" * parallel
    rules = ["%llguidance {}", f"calls: {calls}"]
    if use.required or use.only:
        rules.append("start: calls")
    elif not mark:  # from its first character on an answer is a call or isn't
        rules += ["start: TEXT | calls", r"TEXT: /[^{](.|\n)*/"]
    elif is_token:
        rules += ["start: TEXT (calls TEXT)?", r"TEXT: /(.|\n)*/"]
    else:  # as soon as the mark's text is there, a call must follow
        again = "*" if parallel and family.each_is_marked else "?"
        rules += [f"start: (begun {call}){again} TEXT", f"begun[lazy]: TEXT {mark}"]
        rules.append(r"TEXT: /(.|\n)*/")
    rules.append("body: " + " | ".join(f"tool_{i}" for i in range(len(functions))))
    for i, function in enumerate(functions):
        head = f'{{"name": {json.dumps(function["name"])}, "{family.arguments}": '
        rules.append(f"tool_{i}: {json.dumps(head)} args_{i} {json.dumps('}')}")
        rules.append(f"args_{i}: %json {json.dumps(parameters_of(function))}")
    return "\n".join(rules)


def parameters_of(function: dict[str, Any]) -> dict[str, Any]:
    """Left out: it takes none."""
    found: dict[str, Any] = function.get("parameters") or {"type": "object", "properties": {}}
    return found


def _mark(mark: str, tokenizer: Tokenizer) -> tuple[str, bool]:
    """In Lark, and whether it is a special token, which no text has."""
    token = tokenizer.token_to_id(mark) if mark else None
    added = tokenizer.get_added_tokens_decoder().get(token) if token is not None else None
    if added is not None and added.special:
        return f"<[{token}]>", True
    return (json.dumps(mark) if mark else ""), False
