"""Ends an answer before the first of the caller's stop texts that is complete, for sources that may not heed them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mcp_proxy.bridge.chat import Delta, Ended, StopReason, TextDelta, Usage


class StopTexts:
    """Watches one stream. Words that may be the beginning of a stop text are held back until it is clear."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.hit: str | None = None
        """The stop text that was met: what comes after it is nobody's matter."""

    def feed(self, delta: Delta) -> Iterator[Delta]:
        """The delta as the caller may see it. After a hit nothing but the end passes."""
        if not self._stops:
            yield delta
        elif isinstance(delta, TextDelta):
            if self.hit is None:
                yield from self._words(delta.text)
        elif isinstance(delta, Ended):
            yield from self._rest()
            yield delta if self.hit is None else Ended(StopReason.STOP_SEQUENCE, delta.usage, self.hit)
        elif self.hit is None:
            yield from self._rest()
            yield delta

    def end(self, usage: Usage) -> Ended:
        """The end of a stream that is not read on after a hit."""
        return Ended(StopReason.STOP_SEQUENCE, usage, self.hit)

    def _words(self, text: str) -> Iterator[Delta]:
        text = self._held + text
        found = [(at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            # The one that is complete first, as it would be wherever the text is cut into pieces.
            at, self.hit = min(found, key=lambda one: (one[0] + len(one[1]), one[0]))
            self._held = ""
            if at:
                yield TextDelta(text[:at])
            return
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        if keep < len(text):
            yield TextDelta(text[: len(text) - keep])

    def _rest(self) -> Iterator[Delta]:
        if self._held:
            yield TextDelta(self._held)
            self._held = ""


def _overlap(text: str, stop: str) -> int:
    """How much of the end of ``text`` is the beginning of ``stop``."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
