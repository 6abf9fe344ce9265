"""From the name of a model to who answers for it: sources in order, each with the model that it is asked for. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from mcp_proxy.bridge.errors import MODEL_NOT_FOUND, ChatError

SAMPLING = "sampling"
"""The source that connected MCP clients are."""
EXTERNAL = "mcp-external-sampling"
"""The name of whatever model connected clients choose."""
_ANY = frozenset({"", "auto", EXTERNAL})


@dataclass(frozen=True, slots=True)
class Step:
    """One source to ask. ``model`` "" leaves it to the source."""

    source: str
    model: str


def parse_step(text: str) -> Step:
    """``provider/model`` or ``sampling`` (``sampling/model`` hints at one), as the configuration has it."""
    source, _, model = text.partition("/")
    return Step(source, model)


class Routes:
    """The table of models. ``aliases`` lead to steps, ``provider/model`` to the provider, and any other name is a hint for
    connected clients, where these may answer."""

    def __init__(
        self,
        aliases: Mapping[str, Iterable[Step]],
        providers: Collection[str],
        *,
        sampling: bool = True,
        behind: Iterable[Step] = (),
    ) -> None:
        """``behind``: whom to ask where connected clients do not answer."""
        self._behind = tuple(behind)
        self._aliases = {name: tuple(steps) for name, steps in aliases.items()}
        self._providers = frozenset(providers)
        self._sampling = sampling

    def of(self, model: str) -> tuple[Step, ...]:
        """Whom to ask, in order; at least one. Raises `ChatError` (``model_not_found``)."""
        if (steps := self._meant(model)) is not None:
            return steps
        if self._sampling:
            return (Step(SAMPLING, "" if model in _ANY else model), *self._behind)
        raise ChatError(
            MODEL_NOT_FOUND, f"there is no model called {model[:200]!r}; GET /v1/models lists them", param="model"
        )

    def _meant(self, model: str) -> tuple[Step, ...] | None:
        if (steps := self._aliases.get(model)) is not None:
            return steps
        source, slash, rest = model.partition("/")
        return (Step(source, rest),) if slash and rest and source in self._providers else None

    def knows(self, model: str) -> bool:
        """Whether this is a name of ours, and not what may be some connected client's."""
        return self._meant(model) is not None or model in self.names

    @property
    def names(self) -> tuple[str, ...]:
        """What ``GET /v1/models`` lists: the aliases, and the one of connected clients where they may answer."""
        return (*self._aliases, *([EXTERNAL] if self._sampling and EXTERNAL not in self._aliases else []))
