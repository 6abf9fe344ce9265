"""An agent on the official `openai` client, streamed in the terminal: it asks, uses its own tools, and asks again.

    scripts/serve --llm-demo --no-auth                              # in one terminal
    scripts/agent 'Get the weather of "Oslo" and multiply 6 by 7'  # in another

OPENAI_BASE_URL and OPENAI_API_KEY say where to and with which token; MODEL which model. Nothing here is special to this
service: with the provider's own address it does the same.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import openai

ROUNDS = 8
WEATHER = {"oslo": "snow, -3 °C", "rome": "sunny, 19 °C"}


def get_weather(city: str) -> str:
    """The weather, as far as this example knows the world."""
    return WEATHER.get(city.lower(), f"nobody knows the weather of {city}")


def multiply(a: float, b: float) -> str:
    """A product."""
    return f"{a * b:g}"


def tool(run: Callable[..., str], description: str, **parameters: str) -> tuple[Callable[..., str], dict[str, Any]]:
    """A function, and what the model is told of it; ``parameters`` are names and JSON types."""
    schema = {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in parameters.items()},
        "required": list(parameters),
    }
    return run, {
        "type": "function",
        "function": {"name": run.__name__, "description": description, "parameters": schema},
    }


TOOLS = {
    run.__name__: (run, told)
    for run, told in (
        tool(get_weather, "The weather of a city, now", city="string"),
        tool(multiply, "The product of two numbers", a="number", b="number"),
    )
}


def used(name: str, arguments: str) -> str:
    """What the tool says; a mistake of the model's is an answer to it too."""
    try:
        return TOOLS[name][0](**json.loads(arguments or "{}"))
    except (KeyError, TypeError, ValueError) as error:
        return f"error: {error!r}"


def answer(client: openai.OpenAI, messages: list[Any]) -> Any:
    """One round: words are printed as they come; returns the whole message."""
    with client.chat.completions.stream(
        model=os.environ.get("MODEL", "auto"), messages=messages, tools=[told for _, told in TOOLS.values()]
    ) as stream:
        for event in stream:
            if event.type == "content.delta":
                print(event.delta, end="", flush=True)
        message = stream.get_final_completion().choices[0].message
    if message.content:
        print(flush=True)
    return message


def main() -> None:
    """Ask what the command line says, until the model is done."""
    question = " ".join(sys.argv[1:]) or 'Get the weather of "Oslo" and multiply 6 by 7'
    client = openai.OpenAI(
        base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:5000/v1"),
        api_key=os.environ.get("OPENAI_API_KEY", "none"),
    )
    messages: list[Any] = [{"role": "user", "content": question}]
    for _ in range(ROUNDS):
        try:
            message = answer(client, messages)
        except openai.APIConnectionError:
            sys.exit(f"nothing answers at {client.base_url}; start it with: scripts/serve --llm-demo --no-auth")
        except openai.APIError as error:
            sys.exit(f"the service answers: {error}")
        messages.append(message.model_dump(include={"role", "content", "tool_calls"}, exclude_none=True))
        if not message.tool_calls:
            return
        for call in message.tool_calls:
            result = used(call.function.name, call.function.arguments)
            print(f"  [{call.function.name} {call.function.arguments} -> {result}]", flush=True)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    sys.exit(f"no end after {ROUNDS} rounds")


if __name__ == "__main__":
    main()
