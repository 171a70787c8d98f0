"""The agent task: ten tools, the ways people ask for them, and conversations made of both.

A conversation ends in one of four ways, its `kind`: `call` (the row stops at the tool call),
`answer` (the tool has replied and the assistant puts the reply in words), `chat` (no tool is
called for) and `no_tool` (something is asked for that no offered tool does).
"""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from data.generators.slots import Side, Value, draw

REFUSAL = "Sorry, none of my tools can do that."
_MIN_TOOLS, _MAX_TOOLS = 2, 3


@dataclass(frozen=True)
class Wordings:
    """Sentences with `{slot}` holes; `heldout` is used by the test split alone."""

    seen: tuple[str, ...]
    heldout: tuple[str, ...]

    def of(self, side: Side) -> tuple[str, ...]:
        """The wordings of one half."""
        return self.seen if side == "seen" else self.heldout


@dataclass(frozen=True)
class Tool:
    """One callable function: its schema, how it is asked for, and what it replies.

    `slots` and `reply` map a name to a kind of `slots.py`; `answer` may use the names of both.
    """

    name: str
    description: str
    slots: dict[str, str]
    requests: Wordings
    reply: dict[str, str]
    answer: str

    def schema(self) -> dict[str, Any]:
        """The function in the JSON form that models are shown."""
        properties = {name: {"type": _json_type(kind)} for name, kind in self.slots.items()}
        parameters = {"type": "object", "properties": properties, "required": list(self.slots)}
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": function}


@dataclass(frozen=True)
class Chat:
    """Small talk: wordings that mean the same, the one reply to them, and what fills the holes."""

    requests: Wordings
    reply: str
    slots: dict[str, str]


def _json_type(kind: str) -> str:
    return "integer" if kind in ("amount", "count") else "string"


TOOLS = (
    Tool(
        "get_weather",
        "Weather forecast for a city on a date.",
        {"city": "city", "date": "date"},
        Wordings(
            seen=(
                "What is the weather in {city} on {date}?",
                "Weather for {city} on {date}, please.",
                "I travel to {city} on {date}. What will the weather be like?",
                "Tell me the forecast for {city} on {date}.",
                "On {date} I am in {city}. How is the weather there?",
                "Check the weather of {date} in {city}.",
                "Will the weather be good in {city} on {date}?",
                "Get me the {date} forecast for {city}.",
                "How will the weather be on {date} in {city}?",
                "Do you know the forecast in {city} for {date}?",
                "{city}, {date}: what is the weather?",
                "The weather on {date}, in {city}?",
                "Is {city} dry on {date}? Check the forecast.",
                "My trip goes to {city}, it is on {date}. Any forecast?",
            ),
            heldout=(
                "Could you look up the weather forecast for {date} in {city}?",
                "We will be in {city} on {date}, so I want to know the weather.",
                "Please give me the weather forecast of {city}, it is for {date}.",
                "{city} on {date}: how is the weather going to be?",
            ),
        ),
        {"sky": "sky", "degrees": "count"},
        "On {date} it will be {sky} in {city}, with {degrees} degrees.",
    ),
    Tool(
        "convert_currency",
        "Convert an amount of money to another currency.",
        {"amount": "amount", "source": "currency", "target": "currency"},
        Wordings(
            seen=(
                "Convert {amount} {source} to {target}.",
                "How much is {amount} {source} in {target}?",
                "What are {amount} {source} worth in {target}?",
                "Change {amount} {source} into {target}, please.",
                "I have {amount} {source}. What is that in {target}?",
                "Please exchange {amount} {source} for {target}.",
                "I want {target} for my {amount} {source}.",
                "Give me the value of {amount} {source} in {target}.",
                "Turn {amount} {source} into {target} for me.",
                "What do I get in {target} for {amount} {source}?",
                "{amount} {source} in {target}?",
                "From {source} to {target}: convert {amount}.",
                "The bill says {amount} {source}. I pay in {target}, how much is it?",
                "{target} for {amount} {source}, please.",
            ),
            heldout=(
                "Can you convert {amount} {source} into {target} for me?",
                "My hotel costs {amount} {source}, how much is it in {target}?",
                "Tell me what {amount} {source} are worth in {target}.",
                "I need to exchange {amount} {source} to {target}.",
            ),
        ),
        {"result": "amount"},
        "{amount} {source} are {result} {target}.",
    ),
    Tool(
        "book_table",
        "Book a restaurant table for some people.",
        {"restaurant": "place", "people": "count", "time": "time"},
        Wordings(
            seen=(
                "Book a table at {restaurant} for {people} people at {time}.",
                "I need a table for {people} at {restaurant}, {time}.",
                "Reserve a table for {people} people at {restaurant} at {time}.",
                "We are {people} people and want to eat at {restaurant} at {time}.",
                "Get us a table at {time} in {restaurant} for {people}.",
                "Please reserve {restaurant} at {time}, a table for {people} guests.",
                "Dinner at {restaurant} for {people} people at {time}, please book it.",
                "At {time} we want a table for {people} at {restaurant}.",
                "Table for {people} people, {restaurant}, {time}.",
                "Can I have a table at {restaurant} at {time} for {people} people?",
                "{restaurant}, {time}, {people} people: book a table.",
                "There are {people} of us for dinner at {restaurant}. Reserve {time}.",
                "{people} people want a table at {time}. Book {restaurant}.",
                "Let us eat at {restaurant}: a table for {people}, {time}, please.",
            ),
            heldout=(
                "Could you reserve a table for {people} guests at {restaurant} at {time}?",
                "We want to have dinner at {restaurant}: {people} people, at {time}. Book a table.",
                "Please book us in at {restaurant} at {time}, we need a table for {people}.",
                "I would like a table for {people} people at {time} at {restaurant}.",
            ),
        ),
        {"booking": "parcel"},
        "{restaurant} has a table for {people} at {time}. The booking number is {booking}.",
    ),
    Tool(
        "set_alarm",
        "Set an alarm that rings on a date at a time.",
        {"date": "date", "time": "time"},
        Wordings(
            seen=(
                "Set an alarm for {time} on {date}.",
                "Wake me up at {time} on {date}.",
                "On {date} I must get up at {time}, set an alarm.",
                "I need an alarm on {date} at {time}.",
                "Alarm at {time} on {date}, please.",
                "Please wake me on {date} at {time}.",
                "Make an alarm ring at {time} on {date}.",
                "Let the alarm ring on {date} at {time}.",
                "Can you set the alarm to {time} for {date}?",
                "Put an alarm on {date}, {time}.",
                "{date}, {time}: set an alarm.",
                "I sleep long, so wake me on {date} at {time}.",
                "It is for {date}: an alarm at {time}.",
                "{time} is when I get up on {date}. Set the alarm.",
            ),
            heldout=(
                "Could you wake me up on {date} at {time}?",
                "I have to get up at {time} on {date}, so please set the alarm.",
                "For {date} I want an alarm at {time}.",
                "Please have the alarm ring at {time}, it is for {date}.",
            ),
        ),
        {"alarm": "parcel"},
        "The alarm rings on {date} at {time}. Its number is {alarm}.",
    ),
    Tool(
        "send_message",
        "Send a text message to a person.",
        {"to": "person", "text": "text"},
        Wordings(
            seen=(
                "Tell {to} that {text}.",
                "Send {to} a message: {text}.",
                "Write to {to} that {text}.",
                "Let {to} know that {text}.",
                "Message {to} that {text}.",
                "Send a message to {to} saying {text}.",
                "Please text {to} that {text}.",
                "{to} should know that {text}, send a message.",
                "I want to tell {to} that {text}.",
                "Write {to} a message saying that {text}.",
                "{to} needs a message: {text}.",
                "Message to {to}, please: {text}.",
                "I have news for {to}: {text}. Send it.",
                "For {to}: {text}. Write it in a message.",
            ),
            heldout=(
                "Could you send {to} a message saying {text}?",
                "Please let {to} know by message that {text}.",
                "Can you write a text to {to} that {text}?",
                "Message for {to}: {text}. Please send it.",
            ),
        ),
        {"sent": "time"},
        "I told {to} at {sent} that {text}.",
    ),
    Tool(
        "find_flight",
        "Find a flight between two cities on a date.",
        {"origin": "city", "destination": "city", "date": "date"},
        Wordings(
            seen=(
                "Find a flight from {origin} to {destination} on {date}.",
                "I want to fly from {origin} to {destination} on {date}.",
                "Which flights go from {origin} to {destination} on {date}?",
                "Flight from {origin} to {destination}, {date}.",
                "On {date} I have to fly from {origin} to {destination}.",
                "Search a flight to {destination} from {origin} on {date}.",
                "Is there a flight on {date} from {origin} to {destination}?",
                "Get me from {origin} to {destination} by plane on {date}.",
                "Show me flights on {date}, from {origin} to {destination}.",
                "I need a plane to {destination} on {date}, leaving from {origin}.",
                "{origin} to {destination}, {date}: find a flight.",
                "We leave {origin} for {destination} by plane on {date}.",
                "To {destination}, from {origin}: a flight on {date}, please.",
                "{date} is when I fly to {destination}. I start in {origin}.",
            ),
            heldout=(
                "Could you search flights from {origin} to {destination} for {date}?",
                "We want to fly to {destination} on {date}, we start from {origin}.",
                "Please find me a plane from {origin} to {destination} on {date}.",
                "For {date} I need a flight that goes from {origin} to {destination}.",
            ),
        ),
        {"flight": "parcel", "leaves": "time"},
        "Flight {flight} from {origin} to {destination} leaves on {date} at {leaves}.",
    ),
    Tool(
        "track_parcel",
        "Say where a parcel is now.",
        {"parcel_id": "parcel"},
        Wordings(
            seen=(
                "Where is my parcel {parcel_id}?",
                "Track parcel {parcel_id}.",
                "Track the parcel with number {parcel_id}, please.",
                "Has my parcel {parcel_id} arrived?",
                "I am waiting for parcel {parcel_id}. Where is it?",
                "Find my parcel, the number is {parcel_id}.",
                "What happened to parcel {parcel_id}?",
                "My parcel is late, its number is {parcel_id}.",
                "Please check parcel {parcel_id}.",
                "Tell me where parcel {parcel_id} is.",
                "{parcel_id} is my parcel. Where is it now?",
                "Parcel {parcel_id}: where is it?",
                "I have a parcel, {parcel_id}. Track it for me.",
                "Look for parcel {parcel_id}.",
            ),
            heldout=(
                "Could you track my parcel? It has the number {parcel_id}.",
                "Do you know where the parcel {parcel_id} is now?",
                "I want to find parcel number {parcel_id}.",
                "Please tell me if parcel {parcel_id} has arrived.",
            ),
        ),
        {"where": "station"},
        "Parcel {parcel_id} is {where}.",
    ),
    Tool(
        "play_song",
        "Play a song by an artist.",
        {"title": "title", "artist": "person"},
        Wordings(
            seen=(
                "Play {title} by {artist}.",
                "I want to hear {title} by {artist}.",
                "Put on the song {title} from {artist}.",
                "Can you play me {title} by {artist}?",
                "Play the song {title}, the artist is {artist}.",
                "Let us listen to {artist} with {title}.",
                "Play {artist}, the song {title}.",
                "Music please: {title} by {artist}.",
                "Start the song {title} by {artist}.",
                "I would love to listen to {title} from {artist}.",
                "{title}, {artist}: play it.",
                "{artist} sings {title}. Play it for me.",
                "A song from {artist}, please: {title}.",
                "I like {artist}, so put on {title}.",
            ),
            heldout=(
                "Could you put on {title} by {artist}?",
                "Please let me hear the song {title} by {artist}.",
                "I want to listen to {title}, it is a song from {artist}.",
                "Play me some music, {title} by {artist}.",
            ),
        ),
        {"minutes": "count"},
        "Now playing {title} by {artist}, {minutes} minutes.",
    ),
    Tool(
        "add_task",
        "Add a task to the list for a date.",
        {"task": "task", "date": "date"},
        Wordings(
            seen=(
                "Remind me to {task} on {date}.",
                "I must {task} on {date}, put it on my list.",
                "Add a task for {date}: {task}.",
                "On {date} I have to {task}. Note it.",
                "Put {task} on my list for {date}.",
                "Do not let me forget to {task} on {date}.",
                "New task on {date}: {task}.",
                "Note that I need to {task} on {date}.",
                "Please add to my list for {date} that I must {task}.",
                "My task for {date} is to {task}, remind me.",
                "{date}: {task}. Put it on my list.",
                "To do on {date}: {task}.",
                "It is for my list: {task}, on {date}.",
                "I forget things. Remind me on {date} that I must {task}.",
            ),
            heldout=(
                "Could you remind me on {date} to {task}?",
                "Please note a task on my list: {task}, on {date}.",
                "I need to {task} on {date}, do not let me forget it.",
                "For {date}, add this to my list: {task}.",
            ),
        ),
        {"tasks": "count"},
        "I noted that you must {task} on {date}. Your list now has {tasks} tasks.",
    ),
    Tool(
        "get_stock_price",
        "Price of the stock of a company.",
        {"company": "company"},
        Wordings(
            seen=(
                "What is the stock price of {company}?",
                "How much is one share of {company}?",
                "Price of {company} stock, please.",
                "Check the stock {company}.",
                "What does a share of {company} cost?",
                "Tell me the price of the stock {company}.",
                "How is the {company} stock doing?",
                "Look up {company} shares.",
                "I own {company} shares. What is the price now?",
                "Give me the share price of {company}.",
                "{company}: what is the price of a share?",
                "The stock of {company}, how much is it?",
                "I think about {company}. What does the stock cost?",
                "Find the price of {company} shares.",
            ),
            heldout=(
                "Could you check what the {company} stock costs?",
                "I want to buy {company} shares, what is the price?",
                "Please look up the price for a share of {company}.",
                "Do you know how much the stock {company} is now?",
            ),
        ),
        {"price": "amount"},
        "One share of {company} costs {price}.",
    ),
)

CHATS = (
    Chat(
        Wordings(
            seen=(
                "Hello!",
                "Hi there.",
                "Good morning!",
                "Hey, assistant.",
                "Hi!",
                "Good evening.",
            ),
            heldout=("Hello there.", "Good morning, assistant."),
        ),
        "Hello! What can I do for you?",
        {},
    ),
    Chat(
        Wordings(
            seen=(
                "Thank you!",
                "Thanks a lot.",
                "Thanks, that is all.",
                "Great, thank you.",
                "Many thanks!",
            ),
            heldout=("Thank you, great.", "That is all, many thanks."),
        ),
        "You are welcome!",
        {},
    ),
    Chat(
        Wordings(
            seen=(
                "Who are you?",
                "What are you?",
                "Are you a person?",
                "Tell me who you are.",
                "What is this?",
            ),
            heldout=("Tell me, what are you?", "Who is this?"),
        ),
        "I am a small assistant that can use tools.",
        {},
    ),
    Chat(
        Wordings(
            seen=(
                "My name is {person}.",
                "Hi, I am {person}.",
                "Hello, {person} here.",
                "You can call me {person}.",
                "I am called {person}.",
            ),
            heldout=("Hello, my name is {person}.", "Hi, you can call me {person}."),
        ),
        "Nice to meet you, {person}!",
        {"person": "person"},
    ),
    Chat(
        Wordings(
            seen=(
                "I live in {city}.",
                "My home is in {city}.",
                "I was born in {city}.",
                "I grew up in {city}.",
                "I come from {city}.",
            ),
            heldout=("I was born and live in {city}.", "My home is the town of {city}."),
        ),
        "I hope life is good in {city}.",
        {"city": "city"},
    ),
    Chat(
        Wordings(
            seen=(
                "My favourite song is {title}.",
                "I love {title}.",
                "{title} is a great song.",
                "I think {title} is wonderful.",
                "I really like {title}.",
            ),
            heldout=("I think {title} is my favourite song.", "{title} is wonderful, I love it."),
        ),
        "{title} is a fine choice.",
        {"title": "title"},
    ),
)

# Asked for now and then, though no tool of the ten does any of it.
BEYOND_ALL_TOOLS = Wordings(
    seen=(
        "Please {task} for me.",
        "Can you {task}?",
        "Go and {task} now.",
        "Draw a picture of {person}.",
        "Paint my house in {city}.",
        "Cook dinner for {person}.",
        "Drive me to {city}.",
        "Wash my car, please.",
        "Translate this into French: {text}.",
        "Write a poem about {city}.",
        "Open the door for {person}.",
        "Turn off the lights.",
        "Close the window, please.",
        "Delete my photos of {city}.",
        "Call {person} on the phone.",
        "Print the report for {person}.",
        "Feed my cat.",
        "Buy a house in {city} for me.",
        "Make me a coffee.",
        "Clean the kitchen for {person}.",
    ),
    heldout=(
        "Could you {task} for me, please?",
        "Draw a map of {city}.",
        "Cook a soup for {person}, please.",
        "Take {person} to {city} by car.",
        "Write a poem for {person}.",
        "Turn off the coffee machine.",
        "Paint a picture of {city}.",
        "Open the window for me.",
    ),
)

# How often each kind is drawn, in hundredths: most of the task is calling the right tool.
_SHARES = {"call": 48, "answer": 18, "chat": 14, "no_tool": 20}


def splits(counts: dict[str, int], seed: int) -> dict[str, list[dict[str, Any]]]:
    """Make each split's rows: none is in two splits, and `test` alone is of held-out stuff."""
    already: set[str] = set()
    return {split: list(_rows(split, count, seed, already)) for split, count in counts.items()}


def _rows(split: str, count: int, seed: int, already: set[str]) -> Iterator[dict[str, Any]]:
    side: Side = "heldout" if split == "test" else "seen"
    rng = random.Random(f"agent/{split}/{seed}")
    for number in range(count):
        kind = rng.choices(list(_SHARES), weights=list(_SHARES.values()))[0]
        # Small talk soon repeats itself: such a row is redrawn with its kind kept, so shares hold.
        while (text := json.dumps(row := _MAKERS[kind](rng, side))) in already:
            pass
        already.add(text)
        yield {"id": f"{split}-{number:05d}", "kind": kind, **row}


def _call(rng: random.Random, side: Side) -> dict[str, Any]:
    tool = rng.choice(TOOLS)
    values = _values(tool.slots, rng, side)
    return _row(
        _offer(rng, tool), _request(tool.requests, values, rng, side), _tool_call(tool, values)
    )


def _answer(rng: random.Random, side: Side) -> dict[str, Any]:
    tool = rng.choice(TOOLS)
    values, reply = _values(tool.slots, rng, side), _values(tool.reply, rng, side)
    return _row(
        _offer(rng, tool),
        _request(tool.requests, values, rng, side),
        _tool_call(tool, values),
        {"role": "tool_response", "content": json.dumps(reply)},
        {"role": "assistant", "content": tool.answer.format(**values, **reply)},
    )


def _chat(rng: random.Random, side: Side) -> dict[str, Any]:
    chat = rng.choice(CHATS)
    values = _values(chat.slots, rng, side)
    offered = _sample(rng) if rng.random() < 0.5 else []
    reply = {"role": "assistant", "content": chat.reply.format(**values)}
    return _row(offered, _request(chat.requests, values, rng, side), reply)


def _no_tool(rng: random.Random, side: Side) -> dict[str, Any]:
    if rng.random() < 0.75:
        wanted = rng.choice(TOOLS)
        offered = _sample(rng, [tool for tool in TOOLS if tool is not wanted])
        request = _request(wanted.requests, _values(wanted.slots, rng, side), rng, side)
    else:
        slots = {"task": "task", "person": "person", "city": "city", "text": "text"}
        offered = _sample(rng)
        request = _request(BEYOND_ALL_TOOLS, _values(slots, rng, side), rng, side)
    return _row(offered, request, {"role": "assistant", "content": REFUSAL})


_MAKERS: dict[str, Callable[[random.Random, Side], dict[str, Any]]] = {
    "call": _call,
    "answer": _answer,
    "chat": _chat,
    "no_tool": _no_tool,
}


def _values(slots: dict[str, str], rng: random.Random, side: Side) -> dict[str, Value]:
    """Draw one value a slot, no two alike (a flight from a city to itself says nothing)."""
    values: dict[str, Value] = {}
    for name, kind in slots.items():
        value = draw(kind, rng, side)
        while value in values.values():
            value = draw(kind, rng, side)
        values[name] = value
    return values


def _request(
    wordings: Wordings, values: dict[str, Value], rng: random.Random, side: Side
) -> dict[str, str]:
    return {"role": "user", "content": rng.choice(wordings.of(side)).format(**values)}


def _tool_call(tool: Tool, values: dict[str, Value]) -> dict[str, str]:
    return {"role": "tool_call", "content": json.dumps({"name": tool.name, "arguments": values})}


def _sample(rng: random.Random, candidates: list[Tool] | None = None) -> list[Tool]:
    return rng.sample(candidates or list(TOOLS), rng.randint(_MIN_TOOLS, _MAX_TOOLS))


def _offer(rng: random.Random, wanted: Tool) -> list[Tool]:
    """Some tools in random order, the wanted one among them."""
    others = [tool for tool in TOOLS if tool is not wanted]
    offered = [wanted, *rng.sample(others, rng.randint(_MIN_TOOLS, _MAX_TOOLS) - 1)]
    rng.shuffle(offered)
    return offered


def _row(offered: list[Tool], *messages: dict[str, str]) -> dict[str, Any]:
    """Tools travel as text: their key order then survives every file format."""
    row: dict[str, Any] = {"messages": list(messages)}
    if offered:
        row = {"tools": json.dumps([tool.schema() for tool in offered]), **row}
    return row
