"""Pretraining text for the demo's base model: it teaches to read, copy and extract, not the task.

A model this small cannot pick up copying from a few thousand dialogues, so the corpus practises
it on everything: made-up names, numbers, random letters, JSON records, lists of functions. What
the agent task is about is left to the tuning: no chat turns, no tool calls, no held-out value.
"""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from data.generators.agent import TOOLS, Tool
from data.generators.slots import CLOSED_KINDS, Value, draw, kinds

_FRAME = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n",
    "For each function call, return a json object with function name and arguments within XML "
    "tags:\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n',
    "The system, the user and the assistant take turns:\nsystem\nuser\nassistant\n",
    "A tool reads the call and writes a response.\n",
)

# Statements, where the task has requests: same fields, other words, and no function is called.
_NOTES: dict[str, tuple[str, ...]] = {
    "get_weather": (
        "The weather report covers {city}, the day is {date}.",
        "A trip to {city} starts on {date} and the forecast matters.",
        "For {date} the weather in {city} was looked up.",
        "Somebody asks how the weather is in {city} on {date}.",
        "They would like a forecast on {date}, their town is {city}.",
        "{city} on {date}: that is the weather they asked for.",
    ),
    "convert_currency": (
        "An amount of {amount} {source} was changed into {target}.",
        "She exchanged {amount} {source} and got {target} at the bank.",
        "He paid {amount} {source}, the shop wanted {target}.",
        "Somebody asks what {amount} {source} are worth in {target}.",
        "They would like to convert {amount} {source} to {target}.",
        "{amount} {source} is the amount, {target} is what they want.",
    ),
    "book_table": (
        "A party of {people} had dinner at {restaurant} at {time}.",
        "At {time} the table at {restaurant} was reserved for {people} guests.",
        "{restaurant} has a booking at {time}: {people} people.",
        "Somebody asks for a table for {people} at {restaurant} at {time}.",
        "They would like to eat at {time} in {restaurant}, {people} people.",
        "{people} people, a table at {time}: {restaurant} has it.",
    ),
    "set_alarm": (
        "The alarm rang at {time} on {date}.",
        "On {date} they woke up at {time}.",
        "An alarm stands for {date}, the time is {time}.",
        "Somebody asks to wake up on {date} at {time}.",
        "They would like an alarm at {time}, on {date}.",
        "{date}, {time}: that is when the alarm rings.",
    ),
    "send_message": (
        "A message reached {to}: {text}.",
        "{to} heard that {text}.",
        "Somebody told {to} the news that {text}.",
        "Somebody asks to let {to} know that {text}.",
        "They would like to write {to} a message that {text}.",
        "{text}: that is the message for {to}.",
    ),
    "find_flight": (
        "The plane flew from {origin} to {destination} on {date}.",
        "On {date} a flight left {origin} and landed in {destination}.",
        "She reached {destination} on {date}, coming from {origin}.",
        "Somebody asks for a flight from {origin} to {destination} on {date}.",
        "They would like to fly to {destination} from {origin}, on {date}.",
        "{date} is the day of the flight from {origin} to {destination}.",
    ),
    "track_parcel": (
        "The parcel has the number {parcel_id}.",
        "Parcel {parcel_id} was tracked on its way.",
        "A parcel arrived late, it was {parcel_id}.",
        "Somebody asks where the parcel {parcel_id} is.",
        "They would like to find their parcel, number {parcel_id}.",
        "{parcel_id} is the number of a parcel.",
    ),
    "play_song": (
        "{artist} sang {title} and the music was good.",
        "The song {title} was played, its artist is {artist}.",
        "They listened to {title} by {artist}.",
        "Somebody asks to hear {title} from {artist}.",
        "They would like to put on {artist} with the song {title}.",
        "{title} is a song, {artist} is the artist.",
    ),
    "add_task": (
        "The list for {date} says to {task}.",
        "They had to {task} on {date} and did not forget it.",
        "A reminder to {task} was noted for {date}.",
        "Somebody asks to note on the list for {date} to {task}.",
        "They need to {task} on {date} and would like a reminder.",
        "{date}: {task}, says the list.",
    ),
    "get_stock_price": (
        "A stock of {company} was bought.",
        "A share of {company} has a price.",
        "The price of {company} shares was looked up.",
        "Somebody asks how much the {company} stock costs.",
        "They would like to know the share price of {company}.",
        "{company} has a stock with a high price.",
    ),
}

_SMALL_TALK = (
    "People say hello when they meet and thank you when they part.",
    "Who says good morning is friendly. You are welcome is a good reply to thanks.",
    "An assistant is small and can use tools. Sorry, it says, when none of its tools can do that.",
    "What can I do for you? It is nice to meet somebody new, and I hope that life is good.",
    "A favourite song is a fine choice, and a great one is wonderful to listen to.",
    "Please draw a picture, cook a soup, open the window, turn off the lights and wash the car.",
    "Can you write a poem, paint a house, drive a car, translate a text or make a coffee?",
    "I would like to know, could you look it up and tell me, please?",
    "We want it, they need it, I would love it, and you do not have to give it to me.",
)

_WORDS = (
    "apple basket camera dollar eagle farmer guitar hammer insect jacket kettle ladder magnet "
    "needle orange pencil quilt ribbon saddle tunnel umbrella violin wagon yellow zebra"
)
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def documents(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield `count` rows of plain text."""
    rng = random.Random(f"corpus/{seed}")
    makers = [maker for maker, _ in _MAKERS]
    weights = [weight for _, weight in _MAKERS]
    for _ in range(count):
        yield {"text": rng.choices(makers, weights=weights)[0](rng)}


def _note(rng: random.Random, tool: Tool | None = None) -> tuple[str, Tool, dict[str, Value]]:
    """A sentence, the tool whose fields it mentions and their values."""
    tool = tool or rng.choice(TOOLS)
    values = {name: _draw(kind, rng) for name, kind in tool.slots.items()}
    return rng.choice(_NOTES[tool.name]).format(**values), tool, values


def _records(rng: random.Random) -> str:
    """Sentences, each followed by its facts as JSON: reading fields out of words."""
    lines: list[str] = []
    for _ in range(rng.randint(1, 2)):
        note, _, values = _note(rng)
        lines += [f"Note: {note}", *([f"Again: {note}"] if rng.random() < 0.5 else [])]
        lines += [f"Record: {json.dumps(values)}"]
    return "\n".join(lines)


def _retelling(rng: random.Random) -> str:
    """A note, its facts as JSON, then the same in other words: the way back."""
    note, tool, values = _note(rng)
    reply = {name: _draw(kind, rng) for name, kind in tool.reply.items()}
    facts, words = {**values, **reply}, tool.answer.format(**values, **reply)
    return f"Note: {note}\nFacts: {json.dumps(facts)}\nIn words: {words}"


def _catalogue(rng: random.Random) -> str:
    """A list of functions, then which of them suits a note, if any: looking things up."""
    listed = rng.sample(TOOLS, rng.randint(2, 3))
    schemas = [json.dumps(tool.schema()) for tool in listed]
    lines = [_FRAME[0] + "<tools>", *schemas, "</tools>"]
    for _ in range(rng.randint(2, 3)):
        note, tool, values = _note(rng, rng.choice(listed) if rng.random() < 0.6 else None)
        lines += [f"Note: {note}", f"Listed function: {tool.name if tool in listed else 'none'}"]
        lines += [f"Record: {json.dumps(values)}"]
    return "\n".join(lines)


def _frame(rng: random.Random) -> str:
    return "\n".join(rng.sample(_FRAME + _SMALL_TALK, 3))


def _echo(rng: random.Random) -> str:
    """Arbitrary strings said again and again, plain and as JSON: copying whatever it is."""
    items = [_anything(rng) for _ in range(rng.randint(1, 4))]
    said = ", ".join(items)
    lines = [f"{rng.choice(('Say', 'Write', 'List'))}: {said}."]
    lines += [f"Again: {said}." for _ in range(rng.randint(2, 4))]
    return "\n".join((*lines, json.dumps(items)))


def _lookup(rng: random.Random) -> str:
    """Keyed facts, asked for in another order: finding by key instead of by place."""
    facts = {_draw("person", rng): _anything(rng) for _ in range(rng.randint(2, 4))}
    lines = [f"{person} has {thing}." for person, thing in facts.items()]
    asked = rng.sample(list(facts.items()), rng.randint(1, len(facts)))
    lines += [f"Question: What does {person} have? Answer: {thing}." for person, thing in asked]
    return "\n".join(lines)


def _story(rng: random.Random) -> str:
    person, city = _draw("person", rng), _draw("city", rng)
    other, date, time = (_draw(kind, rng) for kind in ("person", "date", "time"))
    return (
        f"{person} lives in {city}. On {date} {other} comes to {city} to meet {person} at {time}. "
        f"{_draw('text', rng)}, says {other}. At {time} {person} and {other} "
        f"{_draw('task', rng)}. {person} hopes that life is good in {city}."
    )


def _anything(rng: random.Random) -> str:
    """Mostly a slot value; sometimes a few words, a made-up code or random letters."""
    choice = rng.random()
    if choice < 0.7:
        return str(_draw(rng.choice(kinds()), rng))
    if choice < 0.85:
        return " ".join(rng.sample(_WORDS.split(), rng.randint(1, 3)))
    letters = _LETTERS if choice < 0.95 else _LETTERS.lower()
    return "".join(rng.choice(letters) for _ in range(rng.randint(2, 5)))


def _draw(kind: str, rng: random.Random) -> Value:
    """A value the test split does not use, except where the kind is a handful of words."""
    return draw(kind, rng, "any" if kind in CLOSED_KINDS else "seen")


_MAKERS: tuple[tuple[Callable[[random.Random], str], int], ...] = (
    (_records, 28),
    (_retelling, 14),
    (_catalogue, 16),
    (_frame, 2),
    (_echo, 30),
    (_lookup, 6),
    (_story, 4),
)
