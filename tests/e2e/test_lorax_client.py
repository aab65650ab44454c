"""`lorax-client`, unmodified, against the platform; and LoRAX' routes as curl's users call them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.environments import python_with, run
from loraplex.apikeys import FIRST_TENANT
from tests.conftest import ADAPTERS, REPOSITORY
from tests.e2e.running import Platform, until
from tests.fakes.hub import Hub

CLIENT = "lorax-client==0.6.3"
BASE = "/deployments/chat"
SDK = "/acme/deployments/v2/llms/chat"  # where Predibase's SDK looks
NULLS: dict[str, Any] = {
    **dict.fromkeys(["adapter_id", "adapter_source", "merged_adapters", "api_token", "best_of"]),
    **dict.fromkeys(["max_new_tokens", "repetition_penalty", "seed", "temperature", "top_k"]),
    **dict.fromkeys(["top_p", "truncate", "typical_p", "return_k_alternatives"]),
    **dict.fromkeys(["response_format"]),
    **dict.fromkeys(["do_sample", "ignore_eos_token", "return_full_text", "watermark"], False),
    **dict.fromkeys(["details", "decoder_input_details"], False),
    "stop": [],
}


@pytest.fixture(scope="module")
def lorax(model_store: Any) -> Path:
    return python_with(CLIENT)


def ask(platform: Platform, path: str, inputs: str = "One, two", **given: Any) -> httpx.Response:
    parameters = NULLS | {"max_new_tokens": 8} | given
    body = {"inputs": inputs, "parameters": parameters, "stream": False}
    return platform.http().post(path, json=body)


def stream(platform: Platform, path: str = BASE, **given: Any) -> Iterator[dict[str, Any]]:
    body = {"inputs": "One, two", "parameters": NULLS | {"max_new_tokens": 8} | given}
    text = platform.http().post(f"{path}/generate_stream", json=body).text
    for line in text.splitlines():
        if line.startswith("data:"):
            yield json.loads(line.removeprefix("data:"))


def test_the_example_runs(platform: Platform, lorax: Path) -> None:
    environment = {"LORAPLEX_URL": platform.url, "DEPLOYMENT": "chat"}
    key = platform.http().headers["authorization"].removeprefix("Bearer ")
    printed = run(
        lorax,
        REPOSITORY / "examples" / "lorax_client_day.py",
        environment | {"LORAPLEX_API_KEY": key},
    )
    assert "Arrr" in printed and "refused: hub:pirate/1" in printed
    assert "limited: " in printed and "1 concurrent" in printed and "used: " in printed


@pytest.mark.parametrize("path", [BASE, SDK])
def test_the_base_url_answers_with_a_list_and_generate_with_an_object(
    platform: Platform, path: str
) -> None:
    (first,) = ask(platform, path, details=True).json()
    other = ask(platform, f"{path}/generate", details=True)
    assert first == other.json()
    assert first["details"]["generated_tokens"] == len(first["details"]["tokens"]) == 8
    assert first["details"]["finish_reason"] == "length"
    assert "".join(t["text"] for t in first["details"]["tokens"]) == first["generated_text"]
    assert other.headers["x-total-tokens"] == str(first["details"]["prompt_tokens"] + 8)
    assert ask(platform, f"{path}/generate").json()["details"] is None


@pytest.mark.parametrize(
    "given",
    [{}, {"adapter_id": "pirate/1"}, {"adapter_id": "__base_model__"}, {"stop": ["used"]}],
    ids=str,
)
def test_a_stream_says_the_same_as_a_whole(platform: Platform, given: dict[str, Any]) -> None:
    whole = ask(platform, f"{BASE}/generate", details=True, **given).json()
    *_, last = events = list(stream(platform, **given))
    assert [e["token"] for e in events] == whole["details"]["tokens"]
    assert last["generated_text"] == whole["generated_text"]
    assert last["details"] == {
        k: v for k, v in whole["details"].items() if k not in ("tokens", "prefill")
    }
    assert all(e["generated_text"] is None for e in events[:-1])


def test_a_stop_string_is_part_of_the_text_as_lorax_has_it(platform: Platform) -> None:
    plain = ask(platform, f"{BASE}/generate").json()["generated_text"]
    stop = plain.split()[3]
    found = ask(platform, f"{BASE}/generate", stop=[stop], details=True).json()
    assert found["generated_text"] == plain[: plain.index(stop) + len(stop)]
    assert found["details"]["finish_reason"] == "stop_sequence"


def test_parameters_mean_what_they_mean_at_lorax(platform: Platform) -> None:
    plain = ask(platform, f"{BASE}/generate").json()["generated_text"]
    full = ask(platform, f"{BASE}/generate", return_full_text=True).json()["generated_text"]
    assert full == "One, two" + plain
    sampled = {"temperature": 1.5, "seed": 7}
    one, again = (ask(platform, f"{BASE}/generate", **sampled).json() for _ in range(2))
    assert one == again and one["generated_text"] != plain
    shown = ask(
        platform, f"{BASE}/generate", details=True, return_k_alternatives=3,
        decoder_input_details=True,
    ).json()["details"]  # fmt: skip
    prefill = ask(platform, f"{BASE}/generate", decoder_input_details=True).json()["details"]
    assert prefill["prefill"] == shown["prefill"]
    assert all(len(t["alternative_tokens"]) == 3 for t in shown["tokens"])
    assert shown["prefill"][0]["logprob"] is None and shown["prefill"][1]["logprob"] < 0
    short = ask(platform, f"{BASE}/generate", "a b c d e f g", truncate=2, details=True).json()
    assert short["details"]["prompt_tokens"] == 2
    best = ask(platform, f"{BASE}/generate", best_of=3, do_sample=True, details=True)
    assert best.status_code == 200 and best.headers["x-generated-tokens"] == "24"


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"adapter_id": "nobody/1"}, 404, ""),
    ({"adapter_id": "org/x", "adapter_source": "hub"}, 422, "validation"),
    ({"typical_p": 0.5}, 422, "validation"),
    ({"watermark": True}, 422, "validation"),
    ({"best_of": 2}, 422, "validation"),
    ({"top_p": 0}, 422, "validation"),
    ({"max_new_tokens": 0}, 422, "validation"),
    ({"max_new_tokens": 10**6}, 422, "validation"),
    ({"response_format": {"type": "yaml"}}, 422, "validation"),
    ({"surprise": 1}, 422, "validation"),
    ({"adapter_id": "a\0/1"}, 422, "validation"),
]


@pytest.mark.parametrize(("given", "status", "kind"), REFUSED, ids=str)
def test_what_is_not_honoured_is_refused_in_loraxs_words(
    platform: Platform, given: dict[str, Any], status: int, kind: str
) -> None:
    answer = ask(platform, BASE, **given)
    assert answer.status_code == status, answer.text
    assert answer.json().get("error_type", "") == kind and answer.json()["error"]


def test_who_may_not_and_what_is_not_there(platform: Platform) -> None:
    assert ask(platform, "/deployments/nothing").status_code == 404
    assert ask(platform, "/deployments/chat:pirate%2F1").status_code == 404
    nobody = httpx.post(f"{platform.url}{BASE}", json={"inputs": "Hi"})
    assert nobody.status_code == 401 and "error" in nobody.json()
    assert platform.http().post(BASE, content="{").json()["error_type"] == "validation"


def test_info_health_and_tokens(platform: Platform) -> None:
    http = platform.http()
    info = http.get(f"{BASE}/info").json()
    assert info["max_total_tokens"] == 8192 and info["model_id"].endswith("SmolLM2-135M-Instruct")
    assert http.get(f"{SDK}/health").status_code == 200
    tokens = http.post(f"{BASE}/tokenize", json={"inputs": "One, two"}).json()
    assert "".join(t["text"] for t in tokens) == "One, two"


def test_openai_under_the_deployments_path(platform: Platform) -> None:
    """There `model` is an adapter, or empty."""
    facts = platform.openai()
    client = openai.OpenAI(
        base_url=str(facts.base_url).replace("/v1/", f"{SDK}/v1/"), api_key=facts.api_key
    )
    said = {"messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 8}
    answers = {}
    for model in ("", "chat", "pirate/1", "chat:pirate/1"):
        found = client.chat.completions.create(model=model, temperature=0, **said)  # type: ignore[call-overload]
        answers[model] = found.choices[0].message.content
    assert answers[""] == answers["chat"] != answers["pirate/1"] == answers["chat:pirate/1"]
    listed = {model.id for model in client.models.list()}
    assert {"chat", "pirate/1"} < listed and not listed & set(_others(platform))
    assert client.models.retrieve("pirate/1").id == "pirate/1"
    vectors = [client.embeddings.create(model=m, input="a").data[0] for m in ("", "pirate/1")]
    assert vectors[0].embedding != vectors[1].embedding
    for wrong in ("nonsense", "pirate/9"):
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve(wrong)
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model=wrong, **said)  # type: ignore[call-overload]


def _others(platform: Platform) -> list[str]:
    rows = platform.http().get("/api/v1/deployments").json()["data"]
    return [row["name"] for row in rows if row["name"] != "chat"]


def test_an_answer_is_read_again_in_its_own_shape(platform: Platform) -> None:
    found = ask(platform, f"{BASE}/generate")
    again = platform.http().get(f"/api/v1/requests/{found.headers['x-request-id']}/answer")
    assert again.json() == found.json()


def test_its_client_embeds_a_text(platform: Platform, lorax: Path, tmp_path: Path) -> None:
    script = tmp_path / "embed.py"
    script.write_text(
        "import os; from lorax import Client\n"
        "headers = {'Authorization': 'Bearer ' + os.environ['LORAPLEX_API_KEY']}\n"
        "client = Client(os.environ['LORAPLEX_URL'] + '/deployments/chat', headers=headers)\n"
        "found = client.embed('The cat sat on the mat.').embeddings\n"
        "print(len(found), round(sum(x * x for x in found), 3))\n"
    )
    key = platform.http().headers["authorization"].removeprefix("Bearer ")
    environment = {"LORAPLEX_URL": platform.url, "LORAPLEX_API_KEY": key}
    assert run(lorax, script, environment).split() == ["576", "1.0"]


def merged(*ids: str, **given: Any) -> dict[str, Any]:
    """As its client sends them."""
    unset = {"merge_strategy": None, "majority_sign_method": None, "density": 0.0}
    return unset | {"ids": list(ids), "weights": [1.0] * len(ids)} | given


def test_merged_adapters_answer_as_what_they_are_merged_to(platform: Platform) -> None:
    def text(**given: Any) -> str:
        answer = ask(platform, f"{BASE}/generate", "Where do you live?", **given)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["generated_text"])

    pirate, json_ = text(adapter_id="pirate/1"), text(adapter_id="json/1")
    assert text(merged_adapters=merged("pirate/1")) == pirate
    only = merged("pirate/1", "json/1", weights=[0.0, 1.0])
    assert text(merged_adapters=only) == json_
    ties = merged("pirate/1", merge_strategy="ties", density=1.0)
    assert text(merged_adapters=ties) == pirate
    dare = merged("pirate/1", "json/1", merge_strategy="dare_ties", density=0.5)
    assert text(merged_adapters=dare) == text(merged_adapters=dare)
    used = until(
        lambda: platform.http().get("/api/v1/usage?by=adapter").json()["data"],
        lambda lines: any(line["adapter"] == "merged(pirate/1, json/1)" for line in lines),
    )
    assert used


@pytest.mark.parametrize(
    ("given", "status", "named"),
    [
        ({"merged_adapters": merged("pirate/1"), "adapter_id": "json/1"}, 422, "exclude"),
        ({"merged_adapters": merged("pirate/9")}, 404, "pirate/9"),
        ({"merged_adapters": merged("chat")}, 404, "chat"),
        ({"merged_adapters": merged()}, 422, "ids"),
        ({"merged_adapters": merged("pirate/1", weights=[1.0, 2.0])}, 422, "weights"),
        ({"merged_adapters": merged("pirate/1", merge_strategy="ties")}, 422, "density"),
        ({"merged_adapters": merged("pirate/1", merge_strategy="slerp")}, 422, "merge_strategy"),
        ({"merged_adapters": merged("org/none"), "adapter_source": "hub"}, 422, "org/none"),
    ],
)
def test_merges_that_cannot_be_are_refused(
    platform: Platform, given: dict[str, Any], status: int, named: str
) -> None:
    answer = ask(platform, f"{BASE}/generate", **given)
    assert answer.status_code == status and named in answer.json()["error"], answer.text


def test_metrics_by_loraxs_names_count_what_was_answered(platform: Platform) -> None:
    def sums() -> dict[str, float]:
        answer = platform.http().get("/deployments/metered/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        families = text_string_to_metric_families(answer.text)
        samples = [each for family in families for each in family.samples]
        return {each.name: each.value for each in samples if "le" not in each.labels}

    platform.deploy("metered")
    assert sums()["lorax_request_count"] == 0
    path = "/deployments/metered/generate"
    answers = [ask(platform, path, details=True).json() for _ in range(3)]
    tokens = sum(each["details"]["generated_tokens"] for each in answers)
    after = until(sums, lambda now: now["lorax_request_count"] == 3)
    for name, wanted in {
        "lorax_request_success": 3,
        "lorax_request_duration_count": 3,
        "lorax_request_generated_tokens_sum": tokens,
        "lorax_request_input_length_sum": 3 * answers[0]["details"]["prompt_tokens"],
    }.items():
        assert after[name] == wanted, name
    until(sums, lambda now: now["lorax_queue_size"] == now["lorax_batch_current_size"] == 0)
    assert {"lorax_batch_current_size", "lorax_request_queue_duration_sum"} < set(after)
    assert {
        "lorax_request_inference_duration_sum",
        "lorax_request_mean_time_per_token_duration_sum",
    } < set(after)
    assert platform.http().delete("/api/v1/deployments/metered").status_code == 200


def test_adapters_by_where_they_lie_are_imported_by_the_first_request(
    platform: Platform, hub: Hub, tmp_path: Path
) -> None:
    hub.repos["org/own"], hub.tokens["org/own"] = hub.repos["org/pirate"], "hf_own"
    pirate = ask(platform, f"{BASE}/generate", adapter_id="pirate/1").json()["generated_text"]
    for given in (
        {"adapter_source": "hub", "adapter_id": "org/pirate"},
        {"adapter_source": "hub", "adapter_id": "org/own", "api_token": "hf_own"},
        {"adapter_source": "s3", "adapter_id": f"s3://adapters/{FIRST_TENANT}/pirate"},
        {"adapter_source": "s3", "adapter_id": "pirate"},
        {"adapter_source": "local", "adapter_id": str(ADAPTERS / "pirate")},
        {"adapter_source": "hub", "merged_adapters": merged("org/pirate")},
    ):
        if given["adapter_source"] == "local" and not platform.takes_paths:
            continue
        answer = ask(platform, f"{BASE}/generate", **given)
        assert answer.json().get("generated_text") == pirate, (given, answer.text)
    before = len(hub.asked)
    again = ask(platform, f"{BASE}/generate", adapter_source="hub", adapter_id="org/pirate")
    assert again.json()["generated_text"] == pirate and len(hub.asked) == before
    listed = platform.http().get("/v1/models").json()["data"]
    assert {"org-pirate/1", "org-own/1"} < {each["id"] for each in listed}


def test_sources_that_cannot_be_had_are_told_with_their_reason(
    platform: Platform, hub: Hub
) -> None:
    hub.repos["org/pickle"] = {"adapter_config.json": b"{}", "adapter_model.bin": b"x"}
    for given, named in (
        ({"adapter_source": "hub", "adapter_id": "org/none"}, "org/none"),
        ({"adapter_source": "hub", "adapter_id": "org/pickle"}, "Pickles"),
        ({"adapter_source": "hub", "adapter_id": "../x"}, "hub:ORG/NAME"),
        ({"adapter_source": "s3", "adapter_id": "s3://other/x"}, "LORAPLEX_S3_SOURCES"),
        ({"adapter_source": "local", "adapter_id": "x"}, "absolute path"),
    ):
        answer = ask(platform, f"{BASE}/generate", **given)
        assert answer.status_code == 422 and named in answer.json()["error"], answer.text


def test_a_key_without_the_scope_imports_nothing(platform: Platform) -> None:
    http = platform.http()
    key = http.post("/api/v1/keys", json={"name": "reader", "scopes": ["inference"]}).json()
    body = {"inputs": "a", "parameters": {"adapter_source": "hub", "adapter_id": "org/another"}}
    headers = {"authorization": f"Bearer {key['key']}"}
    answer = http.post(f"{BASE}/generate", json=body, headers=headers)
    assert answer.status_code == 403 and "adapters" in answer.json()["error"]
    asked = http.get("/api/v1/imports").json()["data"]
    assert "hub:org/another" not in {each["source"] for each in asked}


def test_a_token_is_not_told_again_and_must_be_one(platform: Platform, hub: Hub) -> None:
    http = platform.http()
    broken = http.post("/api/v1/imports", json={"source": "hub:org/own", "token": "hf_secret\n"})
    assert broken.status_code == 400 and "hf_secret" not in broken.text
    asked = {"source": "hub:org/none", "token": "hf_secret"}
    row = http.post("/api/v1/imports", json=asked).json()
    ended = until(
        lambda: http.get(f"/api/v1/imports/{row['id']}").json(),
        lambda found: found["state"] == "failed",
    )
    assert "hf_secret" not in str(ended) and "private" in ended["error"]


def test_another_tenant_reads_no_folders_of_the_server(platform: Platform) -> None:
    http = platform.http()
    assert http.post("/api/v1/tenants", json={"name": "nosy"}).is_success
    made = http.post("/api/v1/keys", json={"name": "k", "scopes": ["admin"], "tenant": "nosy"})
    headers = {"authorization": f"Bearer {made.json()['key']}"}
    digest = http.get("/api/v1/adapters/pirate/1").json()["digest"]
    for folder in (platform.home / "adapters" / digest, ADAPTERS / "pirate"):
        refused = http.post("/api/v1/imports", json={"source": str(folder)}, headers=headers)
        assert refused.status_code == 400 and "not imported from here" in refused.text
    mine = http.post("/api/v1/imports", json={"source": str(platform.home / "adapters" / digest)})
    assert mine.status_code == 400, "nor does the platform's own tenant read those of all"
    body = {"name": "peek", "base_model": str(platform.home / "models")}
    assert http.post("/api/v1/deployments", json=body, headers=headers).status_code == 403


def test_who_may_ask_may_not_download(platform: Platform) -> None:
    http = platform.http()
    key = http.post("/api/v1/keys", json={"name": "asks", "scopes": ["inference"]}).json()["key"]
    headers = {"authorization": f"Bearer {key}"}
    assert http.get("/api/v1/adapters/pirate/1", headers=headers).status_code == 200
    for path in ("/api/v1/adapters/pirate/1/content", "/v2/repos/pirate/version/1/download"):
        assert http.get(path, headers=headers).status_code == 403
        whole = http.get(path, headers={"range": "bytes=x"})
        assert whole.status_code == 200 and whole.content[:2] == b"PK"
    missing = http.get("/v2/repos/pirate/version/9/download").json()
    assert "pirate/9" in missing["error"]["message"]


def test_imports_by_the_command_line(platform: Platform, hub: Hub) -> None:
    done = platform.loraplex("adapters", "import", "hub:org/pirate", "--repo", "by-hand")
    assert done.stdout.strip() == "by-hand/1", done.stderr
    failed = platform.loraplex("adapters", "import", "hub:org/none")
    assert failed.returncode == 1 and "org/none" in failed.stderr
    rows = json.loads(platform.loraplex("adapters", "imports", "--json").stdout)
    assert [row["state"] for row in rows[:2]] == ["failed", "succeeded"]
    ended = platform.loraplex("adapters", "cancel", rows[0]["id"])
    assert ended.returncode == 1 and "has ended" in ended.stderr
