"""The pool of KV blocks: shared by reference count, kept as a prefix cache until needed. No torch.

A full block is known by a hash chain: its tokens, all tokens before it, and a salt of adapter and
tenant (an adapter changes keys and values; a tenant must not learn from another's hits). Blocks
that nobody uses stay findable and are given out again least recently used first.
"""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence

BLOCK = 16  # tokens a block


def blocks_for(tokens: int) -> int:
    return -(-tokens // BLOCK)


def root_hash(adapter: str | None, tenant: str) -> bytes:
    """The start of a chain. Lengths are hashed too, so that no two pairs look alike."""
    name = b"" if adapter is None else b"a" + adapter.encode()
    return hashlib.blake2b(len(name).to_bytes(4, "big") + name + tenant.encode()).digest()[:16]


def chain_hash(parent: bytes, tokens: Sequence[int]) -> bytes:
    """The hash of a full block after `parent`."""
    return hashlib.blake2b(parent + array("q", tokens).tobytes(), digest_size=16).digest()


class BlockPool:
    """Numbers of blocks. Block 0 is never given out: padding reads and writes there."""

    def __init__(self, blocks: int) -> None:
        if blocks < 2:
            raise ValueError("a pool needs two blocks or more: one is for padding")
        self.size = blocks - 1
        self._users = [0] * blocks
        self._hash_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}
        self._blank = list(range(blocks - 1, 0, -1))  # free, nothing worth keeping
        self._cached: OrderedDict[int, None] = OrderedDict()  # free, findable; oldest first

    @property
    def free(self) -> int:
        return len(self._blank) + len(self._cached)

    def take(self, count: int) -> list[int] | None:
        """`count` blocks of one user, or None (and nothing taken) when there are not that many."""
        if count > self.free:
            return None
        taken = []
        for _ in range(count):
            if self._blank:
                block = self._blank.pop()
            else:
                block, _ = self._cached.popitem(last=False)
                del self._block_of[self._hash_of.pop(block)]
            self._users[block] = 1
            taken.append(block)
        return taken

    def find(self, hashes: Sequence[bytes]) -> list[int]:
        """The blocks of the longest known prefix of a chain. Nothing is taken yet."""
        found = []
        for hash_ in hashes:
            block = self._block_of.get(hash_)
            if block is None:
                break
            found.append(block)
        return found

    def share(self, blocks: Sequence[int]) -> None:
        """One more user for each of the blocks that `find` gave."""
        for block in blocks:
            if self._users[block] == 0:
                del self._cached[block]
            self._users[block] += 1

    def name(self, block: int, hash_: bytes) -> None:
        """A block is full and computed: others may share it from now on."""
        if hash_ not in self._block_of and block not in self._hash_of:
            self._block_of[hash_] = block
            self._hash_of[block] = hash_

    def give_back(self, blocks: Sequence[int]) -> None:
        """One user less for each. The ends of chains are forgotten before their beginnings."""
        for block in reversed(blocks):
            self._users[block] -= 1
            if self._users[block] == 0:
                if block in self._hash_of:
                    self._cached[block] = None
                else:
                    self._blank.append(block)

    def users(self, block: int) -> int:
        return self._users[block]
