"""A server on the 2.x SDK that offers what server-everything does, over stdio, and asks clients of both eras.

The SDK decides how: a modern client is answered `input_required`, a legacy one is sent a request during the call.
"""

from __future__ import annotations

from typing import Annotated

import anyio
from mcp.server.mcpserver import Context, Elicit, ListRoots, MCPServer, Resolve, Sample
from mcp_types import CreateMessageResult, ListRootsResult, SamplingMessage, TextContent
from pydantic import BaseModel

server = MCPServer("asking", log_level="WARNING")


class Person(BaseModel):
    name: str
    check: bool


def ask_person() -> Elicit[Person]:
    return Elicit("Who is it?", Person)


def ask_model(prompt: str) -> Sample:
    return Sample([SamplingMessage(role="user", content=TextContent(type="text", text=prompt))], max_tokens=100)


def ask_roots() -> ListRoots:
    return ListRoots()


@server.tool()
def echo(message: str) -> str:
    """Return the message"""
    return f"Echo: {message}"


@server.tool(name="trigger-elicitation-request")
def elicit(person: Annotated[Person, Resolve(ask_person)]) -> str:
    """Ask the user for a name"""
    return f"{person.name}, {person.check}"


@server.tool(name="trigger-sampling-request")
def sample(prompt: str, said: Annotated[CreateMessageResult, Resolve(ask_model)]) -> str:
    """Ask the client's model"""
    return f"{said.model}: {said.content.text}" if isinstance(said.content, TextContent) else said.model


@server.tool(name="get-roots-list")
def roots(listed: Annotated[ListRootsResult, Resolve(ask_roots)]) -> str:
    """Ask for the client's roots"""
    return ", ".join(str(root.uri) for root in listed.roots)


@server.tool(name="trigger-long-running-operation")
async def progress(steps: int, ctx: Context) -> str:
    """Report progress before the answer"""
    for step in range(steps):
        await ctx.report_progress(step + 1, steps)
        await anyio.sleep(0.02)  # progress in one burst with the answer is lost by some clients, whatever lies between
    return f"{steps} steps"


@server.prompt(name="args-prompt")
def weather(city: str) -> str:
    """Ask for the weather"""
    return f"What's weather in {city}?"


@server.resource("asking://notes/today")
def today() -> str:
    return "nothing today"


@server.resource("asking://notes/{day}")
def notes(day: str) -> str:
    return f"nothing on {day}"


if __name__ == "__main__":
    server.run("stdio")
