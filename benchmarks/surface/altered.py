"""Keys that are nearly right, and right keys with what is another tenant's."""

import random
import string
from dataclasses import dataclass

import httpx

from loraplex.apikeys import fingerprint, new_key

_CHARACTERS = string.ascii_letters + string.digits + "-_ "
_WAYS_IN = ("/api/v1/keys", "/v1/models", "/api/v1/usage", "/v1/files", "/v2/deployments")


@dataclass(frozen=True, slots=True)
class Found:
    tried: int
    let_in: list[str]


def altered(text: str, random_: random.Random) -> str:
    place, other = random_.randrange(len(text)), random_.choice(_CHARACTERS)
    return random_.choice(
        [
            text[:place] + other + text[place + 1 :],
            text[:place] + text[place + 1 :],
            text[:place] + other + text[place:],
            text.swapcase(),
            text + other,
        ]
    )


def try_keys(url: str, key: str, times: int, random_: random.Random) -> Found:
    """With altered keys. Let in: answered with anything but 401."""
    let_in = []
    with httpx.Client(base_url=url, timeout=30) as http:
        for _ in range(times):
            wrong = random_.choice([altered(key, random_), fingerprint(key), new_key()]).strip()
            if wrong == key:
                continue
            path = random_.choice(_WAYS_IN)
            headers = {"authorization": f"Bearer {wrong}".encode()}
            if http.get(path, headers=headers).status_code != 401:
                let_in.append(f"{path} with {wrong}")
    return Found(times, let_in)


def try_objects(
    url: str, key: str, paths: list[tuple[str, str]], times: int, random_: random.Random
) -> Found:
    """With a right key of another tenant than whose the objects are, and with altered ids. Let in:
    answered with 2xx. `paths`: method and path; the id is between the last `<` and `>`."""
    let_in = []
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=30) as http:
        for number in range(times):
            method, path = paths[number % len(paths)]
            head, _, rest = path.partition("<")
            name, _, tail = rest.partition(">")
            if number >= len(paths):
                name = "".join(c for c in altered(name, random_) if c not in " /?#") or "x"
            status = http.request(method, f"{head}{name}{tail}").status_code
            if status < 300 or status >= 500:
                let_in.append(f"{method} {head}{name}{tail}: {status}")
    return Found(times, let_in)
