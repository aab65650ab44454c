"""The pool of KV blocks. No torch."""

BLOCK = 16  # tokens a block


def blocks_for(tokens: int) -> int:
    return -(-tokens // BLOCK)


class BlockPool:
    """Numbers of free blocks. Block 0 is never given out: padding reads and writes there."""

    def __init__(self, blocks: int) -> None:
        if blocks < 2:
            raise ValueError("a pool needs two blocks or more: one is for padding")
        self.size = blocks - 1
        self._free = list(range(blocks - 1, 0, -1))

    @property
    def free(self) -> int:
        return len(self._free)

    def take(self, count: int) -> list[int] | None:
        """`count` blocks, or None (and nothing taken) when there are not that many."""
        if count > len(self._free):
            return None
        return [self._free.pop() for _ in range(count)]

    def give_back(self, blocks: list[int]) -> None:
        self._free.extend(reversed(blocks))
