"""A server on the 2.x SDK that speaks the modern era alone, whose tools ask their client for completions.

    python modern.py streamable-http --port 0  # /mcp

``confirmed {text}`` asks for a completion and for the user's word in one go.
"""

from __future__ import annotations

import argparse
import socket
from typing import Annotated, Any

import uvicorn
from mcp.server.mcpserver import Elicit, MCPServer, Resolve, Sample
from mcp_types import (
    CreateMessageResult,
    CreateMessageResultWithTools,
    ModelHint,
    ModelPreferences,
    SamplingMessage,
    TextContent,
    Tool,
)
from pydantic import BaseModel

server = MCPServer("modern", log_level="WARNING")
WEATHER = Tool(name="get_weather", input_schema={"type": "object", "properties": {"city": {"type": "string"}}})


class Word(BaseModel):
    name: str


def question(text: str, **more: Any) -> Sample:
    return Sample([SamplingMessage(role="user", content=TextContent(type="text", text=text))], max_tokens=300, **more)


def of_text(text: str) -> Sample:
    return question(text, system_prompt="Be brief")


def of_model(text: str, model: str) -> Sample:
    return question(text, model_preferences=ModelPreferences(hints=[ModelHint(name=model)]))


def of_city(city: str) -> Sample:
    return question(f'get_weather for "{city}"', tools=[WEATHER])


def of_first(text: str, first: Annotated[CreateMessageResult, Resolve(of_text)]) -> Sample:
    return question(f"more on {text}: {len(said(first))}")


def of_user() -> Elicit[Word]:
    return Elicit("Your word?", Word)


def said(answer: CreateMessageResult) -> str:
    assert isinstance(answer.content, TextContent)
    return f"{answer.model}: {answer.content.text}"


@server.tool()
def summarize(text: str, answer: Annotated[CreateMessageResult, Resolve(of_text)]) -> str:
    """Have a text summarized"""
    return said(answer)


@server.tool()
def summarize_as(text: str, model: str, answer: Annotated[CreateMessageResult, Resolve(of_model)]) -> str:
    """Have it done by a model of one's liking"""
    return said(answer)


@server.tool()
def weather(city: str, answer: Annotated[CreateMessageResultWithTools, Resolve(of_city)]) -> str:
    """Have the model choose a tool"""
    use: Any = answer.content[0] if isinstance(answer.content, list) else answer.content
    return f"{answer.stop_reason}: {use.name} {use.input['city']}"


@server.tool()
def in_two_rounds(text: str, second: Annotated[CreateMessageResult, Resolve(of_first)]) -> str:
    """Ask on, with what was answered"""
    return said(second)


@server.tool()
def confirmed(
    text: str, answer: Annotated[CreateMessageResult, Resolve(of_text)], word: Annotated[Word, Resolve(of_user)]
) -> str:
    """Have a text summarized, and the user asked"""
    return f"{word.name}, {said(answer)}"


@server.tool()
def plain(text: str) -> str:
    """Ask nobody"""
    return text


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("transport", choices=("streamable-http",))
    parser.add_argument("--port", type=int, default=0)
    args = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", args.port))
    config = uvicorn.Config(server.streamable_http_app(), log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
