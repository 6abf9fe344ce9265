"""All sources of servers together, read at the start and again whenever they change: what is in force, what is wrong.

Order: variables, ``--config`` files, ``--config-dir``, what the API added. A file that turns bad keeps what it last
said. Reading one file is `server_file`; noticing that one changed is `watch`; keeping what the API changed is `state`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from mcp_proxy.base.errors import StartError
from mcp_proxy.config.dialects import parse_servers
from mcp_proxy.config.model import ConfigError, Servers
from mcp_proxy.config.places import Stamp, is_there, provider_files, stamp, steps
from mcp_proxy.config.reading import combine, from_variables, places_of
from mcp_proxy.config.server_file import ServerFile
from mcp_proxy.config.state import State, state_file
from mcp_proxy.settings import Settings

Look = tuple[tuple[Path, Stamp], ...]
"""What `Sources.look` saw; two of them differ when a file was changed, came or went."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A source that cannot be used as it is. ``source``: the file; ``line`` in it, where one is known."""

    source: str
    reason: str
    line: int | None = None


class Origin(StrEnum):
    """The kind of source that a server is written in."""

    VARIABLE = "variable"
    FILE = "file"
    DIRECTORY = "directory"
    STATE = "state"


@dataclass(frozen=True, slots=True)
class Configured:
    """What is in force, all of it. ``origins`` has every server, refused ones too."""

    servers: Servers = field(default_factory=Servers)
    problems: tuple[Problem, ...] = ()
    origins: Mapping[str, Origin] = field(default_factory=lambda: MappingProxyType({}))


class Sources:
    """Reads from the disk when it is told to, and blocks meanwhile: one ``start``, then ``reload`` one at a time.

    `look`, `watched` and `concerns` may be asked for by another thread. ``environ`` fills the variables in files.
    """

    def __init__(self, settings: Settings, environ: Mapping[str, str], given: Servers | None = None) -> None:
        """``given`` stands in the place of variables and ``--config`` files."""
        self._given = given
        self._settings = settings
        self._environ = environ
        self._directory = settings.config_dir
        self._state_source = str(state_file(settings.state_dir))
        self._variables = Servers()
        self._files = [] if given is not None else [ServerFile(path, environ) for path in settings.config]
        self._provided: dict[Path, ServerFile] = {}
        self._places: frozenset[Path] = frozenset()
        self._root: Path | None = None
        self.first_look: Look = ()

    def start(self, state: State) -> Configured:
        """Everything for the first time.

        Raises `StartError` for a ``--config`` file that cannot be used, a ``--config-dir`` that is none, and a name
        that is used twice in variables and ``--config`` files. Other faults are problems.
        """
        self.first_look = self.look()
        try:
            self._variables = from_variables(self._settings) if self._given is None else self._given
            found = [file.read() for file in self._files]
            combine([self._variables, *found])
            self._listed()
        except ConfigError as error:
            raise StartError(str(error)) from None
        for file, servers in zip(self._files, found, strict=True):
            file.in_force = servers
        return self.reload(state)

    def reload(self, state: State) -> Configured:
        """Everything as it is now, never raises. What cannot be used is a problem, and what it last said is in force.

        Nothing is remembered of ``state``: one that is only tried out leaves no trace.
        """
        problems: list[Problem] = []
        self._follow_directory(problems)
        files = [*self._files, *self._provided.values()]
        parts = _settled(self._variables, files, [_read(file, problems) for file in files], problems)
        for file, part in zip(files, parts[1:], strict=True):
            file.in_force = part
        self._places = frozenset(self._all_places())
        self._root = None if self._directory is None else steps(self._directory)[-1]
        return self._together(parts, state, problems)

    def _follow_directory(self, problems: list[Problem]) -> None:
        """Take up files that came, and drop those that went. A directory that cannot be listed keeps its files."""
        try:
            paths = [path for path in self._listed() if is_there(path)]
        except ConfigError as error:
            problems.append(_problem(error))
            return
        known = self._provided
        self._provided = {path: known.get(path) or ServerFile(path, self._environ, path.parent.name) for path in paths}

    def _listed(self) -> tuple[Path, ...]:
        """Where files of providers may be. Raises `ConfigError`."""
        if self._directory is None:
            return ()
        try:
            return provider_files(self._directory)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "the path holds a NUL"
            raise ConfigError(str(self._directory), f"cannot be listed: {reason}") from None

    # Putting together

    def _together(self, parts: Sequence[Servers], state: State, problems: list[Problem]) -> Configured:
        origins = {name: origin for part, origin in zip(parts, self._origins(), strict=True) for name in _names(part)}
        added = _added(state, self._state_source, {n: s for part in parts for n, s in places_of(part)}, problems)
        origins |= dict.fromkeys(_names(added), Origin.STATE)
        servers = combine([*(_switched(part, state) for part in parts), added])
        return Configured(servers, tuple(problems), MappingProxyType(origins))

    def _origins(self) -> Iterator[Origin]:
        yield Origin.VARIABLE
        yield from (Origin.FILE for _ in self._files)
        yield from (Origin.DIRECTORY for _ in self._provided)

    # What to watch

    @property
    def state_source(self) -> str:
        """The source of the servers that the API added."""
        return self._state_source

    @property
    def watched(self) -> tuple[Path, ...]:
        """Directories in which something may happen to a file: its own, those of symbolic links on the way to it, and
        ``--config-dir`` with its subdirectories. Some may not be there.
        """
        root = () if self._root is None else (self._root,)
        return tuple(sorted({*(place.parent for place in self._places), *root}))

    def concerns(self, changed: Path) -> bool:
        """Whether a change to this name, in a watched directory, can be a change to the servers."""
        return changed in self._places or changed.parent == self._root

    def look(self) -> Look:
        """How the files look without being read: cheap enough to be asked for every second."""
        paths = [file.path for file in self._files]
        if self._directory is not None:
            paths.append(self._directory / ".")
            with suppress(ConfigError):
                paths += [path for path in self._listed() if is_there(path)]
        return tuple((path, stamp(path)) for path in paths)

    def _all_places(self) -> Iterator[Path]:
        for file in self._files:
            yield from steps(file.path)
        if self._directory is not None:
            yield from steps(self._directory)
            try:
                possible = self._listed()
            except ConfigError:
                possible = tuple(self._provided)
            for path in possible:
                yield from steps(path)


def _read(file: ServerFile, problems: list[Problem]) -> Servers:
    """What a file says now, or what it last said: also where a server that runs would become one that cannot be used."""
    try:
        servers = file.read()
    except ConfigError as error:
        problems.append(_problem(error))
        return file.in_force
    running = {spec.name for spec in file.in_force.specs if not spec.disabled}
    spoilt = next((one for one in servers.refused if one.name in running and not one.disabled), None)
    if spoilt is None:
        return servers
    problems.append(Problem(file.source, f"{spoilt.name}: {spoilt.reason}"))
    return file.in_force


def _settled(
    variables: Servers, files: Sequence[ServerFile], found: Iterable[Servers], problems: list[Problem]
) -> list[Servers]:
    """Parts in which no name is used twice.

    Of two files the later one keeps what it last said; unless it says that still, and it is the earlier one that now
    wants the name. What was in force together holds no name twice, so that this comes to an end.
    """
    parts = [variables, *found]
    while (clash := _clash(parts)) is not None:
        earlier, later, name = clash
        loser, winner = (later, earlier) if parts[later] is not files[later - 1].in_force else (earlier, later)
        place = next(source for used, source in places_of(parts[winner]) if used == name)
        reason = f"the server {name!r} is already written in {place}"
        problems.append(Problem(files[loser - 1].source, reason))
        parts[loser] = files[loser - 1].in_force
    return parts


def _clash(parts: Sequence[Servers]) -> tuple[int, int, str] | None:
    """The first name that two parts use, behind the positions of these parts."""
    users: dict[str, int] = {}
    for position, part in enumerate(parts):
        for name in _names(part):
            if name in users:
                return users[name], position, name
            users[name] = position
    return None


def _names(servers: Servers) -> list[str]:
    return [name for name, _ in places_of(servers)]


def _switched(servers: Servers, state: State) -> Servers:
    """With what the API switched on or off. Where both are said, off counts."""

    def off(name: str, disabled: bool) -> bool:
        return name in state.disabled or (disabled and name not in state.enabled)

    return replace(
        servers,
        specs=tuple(replace(spec, disabled=off(spec.name, spec.disabled)) for spec in servers.specs),
        refused=tuple(replace(one, disabled=off(one.name, one.disabled)) for one in servers.refused),
    )


def _added(state: State, source: str, taken: dict[str, str], problems: list[Problem]) -> Servers:
    """The servers that the API added, one by one: what is wrong with one is no other's business."""
    parts = []
    for name, entry in state.servers.items():
        try:
            part = parse_servers({"mcpServers": {name: entry}}, source, None, None)
        except ConfigError as error:
            problems.append(_problem(error))
            continue
        clash = next((one for one in _names(part) if one in taken), None)
        if clash is not None:
            problems.append(Problem(source, f"the server {clash!r} is already written in {taken[clash]}"))
            continue
        taken |= dict(places_of(part))
        parts.append(part)
    return combine(parts)


def _problem(error: ConfigError) -> Problem:
    return Problem(error.source, error.reason, error.line)
