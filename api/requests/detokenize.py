"""Token ids → text, token by token: never half a character, never a part of a stop string."""

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class Detokenizer:
    """One per answer. What it shows after so many tokens doesn't depend on how they came."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: Sequence[str] = (),
        *,
        keep_stop: bool = False,
        shown_specials: Sequence[str] = (),
    ) -> None:
        """`keep_stop`: stop strings are looked for at the ends of tokens only, and are part of the
        text. `shown_specials`: special tokens that are text nevertheless."""
        added = tokenizer.get_added_tokens_decoder() if shown_specials else {}
        self._shown = {
            token: about.content
            for token, about in added.items()
            if about.special and about.content in shown_specials
        }
        self._keep_stop = keep_stop
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._stop = tuple(stop)
        self._held = ""
        self._tail = ""
        self.length = 0  # characters of the text so far, with those that are held back
        self.latest = ""  # text of the latest token, shown or held back
        self.stopped = False  # a stop string was met; later tokens don't matter

    def feed(self, token: int) -> str:
        """Text that may be shown now."""
        if self.stopped:
            return ""
        piece = self._stream.step(self._tokenizer, token) or ""
        self.latest = piece = piece + self._shown.get(token, "")
        self.length += len(piece)
        if not self._stop:
            return piece
        if self._keep_stop:
            self._tail = (self._tail + piece)[-max(map(len, self._stop)) :]
            self.stopped = self._tail.endswith(self._stop)
            return piece
        self._held += piece
        found = [at for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            shown, self._held = self._held[: min(found)], ""
            return shown
        keep = self._possible_stop()
        shown, self._held = self._held[: len(self._held) - keep], self._held[-keep:] if keep else ""
        return shown

    def flush(self) -> str:
        """What was held back; the stream has ended."""
        rest, self._held = self._held, ""
        return rest

    def _possible_stop(self) -> int:
        """Length of the longest tail that a stop string begins with."""
        longest = min(len(self._held), max((len(s) for s in self._stop), default=1) - 1)
        for size in range(longest, 0, -1):
            if any(stop.startswith(self._held[-size:]) for stop in self._stop):
                return size
        return 0
