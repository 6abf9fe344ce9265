from __future__ import annotations

import pytest

from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.core.catalog.snapshot import Catalog
from mcp_proxy.core.catalog.view import view
from mcp_proxy.gateway.meta.finding import Finder, near
from tests.unit.core.catalog.offers import catalogue, with_tools
from tests.unit.core.fakes import server, tool

pytestmark = pytest.mark.anyio
ANYBODY = Principal("anybody")
CATALOG = catalogue(
    with_tools(server("github"), tool("create_issue", description="Opens one."), tool("list_pulls")),
    with_tools(server("s1", group="search"), tool("find", description="Finds pages.")),
    with_tools(server("s2", group="search"), tool("find", description="Finds pages and issues.")),
    with_tools(server("mail"), tool("send", description="Sends a letter.", annotations={"title": "Post"})),
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def found(question: str, catalog: Catalog = CATALOG, **claims: tuple[str, ...]) -> list[tuple[str, str]]:
    seen = view(catalog, Principal("narrow", **claims) if claims else ANYBODY)
    return [(one.name, one.entry.server) for one in await Finder().find(question, catalog, seen)]


@pytest.mark.parametrize(
    ("question", "first"),
    [("open an issue", "github.create_issue"), ("github pulls", "github.list_pulls"), ("post letter", "mail.send")],
)
async def test_names_titles_servers_and_descriptions_are_searched(question: str, first: str) -> None:
    assert (await found(question))[0][0] == first


async def test_a_group_is_found_once_and_by_what_this_caller_sees_of_it() -> None:
    assert await found("pages") == [("search.find", "s1")]
    assert await found("issue", servers=("s2",)) == [("search.find", "s2")]
    assert await found("issue", servers=("s1",)) == []


async def test_what_the_caller_does_not_see_is_not_found() -> None:
    assert await found("issue", servers=("mail",)) == []
    assert await found("create issue pulls", tools=("list_*",)) == [("github.list_pulls", "github")]


async def test_an_index_is_kept_as_long_as_its_catalogue_is_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    finder = Finder()
    real = finder.find.__globals__["_index_of"]
    monkeypatch.setitem(finder.find.__globals__, "_index_of", lambda entries: made.append(1) or real(entries))
    for _ in range(3):
        await finder.find("issue", CATALOG, view(CATALOG, ANYBODY))
    assert len(made) == 1
    other = catalogue(with_tools(server("new"), "issue_new"))
    assert (await finder.find("issue", other, view(other, ANYBODY)))[0].name == "new.issue_new"
    assert len(made) == 2


async def test_a_large_catalogue_is_searched_as_well() -> None:
    large = catalogue(with_tools(server("many"), *(f"tool_{number}" for number in range(600))))
    assert (await found("tool 77", large))[0] == ("many.tool_77", "many")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("ehco", ["echo"]), ("one.Echo", ["one.echo"]), ("read_fil", ["read_file"]), ("zzzz", []), ("", [])],
)
async def test_a_name_that_is_nearly_right_is_recognised(wrong: str, right: list[str]) -> None:
    known = [f"other_{number}" for number in range(200)]
    assert near(wrong, ["echo", "one.echo", "read_file", *known])[:1] == right
