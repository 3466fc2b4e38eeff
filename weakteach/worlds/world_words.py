"""The words and phrases of the world, and the vocabulary that they add up to.

All text of the world is word-spaced: words and punctuation marks are separated by one space.
"""

from collections.abc import Iterable

CATEGORIES: dict[str, tuple[str, ...]] = {
    category: tuple(items.split())
    for category, items in {
        "fruits": "apple pear plum cherry grape lemon mango peach banana melon fig kiwi",
        "animals": "dog cat horse cow sheep goat pig rabbit fox wolf bear lion",
        "tools": "hammer saw drill pliers chisel shovel rake axe screwdriver anvil crowbar mallet",
        "colors": "red blue green yellow purple brown black white gray pink teal beige",
        "birds": "robin eagle owl crow swan goose hawk parrot pigeon sparrow heron wren",
        "drinks": "tea coffee milk juice cocoa lemonade cider soda water smoothie espresso punch",
        "clothes": "shirt hat coat scarf glove sock shoe dress skirt belt sweater jacket",
        "instruments": "piano violin guitar drum flute harp trumpet cello banjo oboe tuba clarinet",
        "vegetables": "carrot onion potato pea bean cabbage spinach celery leek radish turnip beet",
        "metals": "gold silver iron copper tin zinc nickel steel bronze brass chrome cobalt",
        "countries": "france spain italy japan brazil canada egypt india kenya norway peru greece",
        "sports": "tennis soccer golf rugby hockey boxing rowing cricket archery fencing judo polo",
    }.items()
}
CATEGORY_OF: dict[str, str] = {
    item: category for category, items in CATEGORIES.items() for item in items
}
ITEMS: tuple[str, ...] = tuple(CATEGORY_OF)
NAMES = (
    "anna",
    "ben",
    "clara",
    "david",
    "emma",
    "frank",
    "grace",
    "henry",
    "ivy",
    "jack",
    "kate",
    "leo",
)
COUNTS: dict[str, int] = {"two": 2, "three": 3, "four": 4, "five": 5}

# What one may do to an object, and the aid that it takes; only the verb tells help from harm.
AIDS: dict[str, str] = {
    "clean": "sponge",
    "paint": "brush",
    "fix": "wrench",
    "polish": "cloth",
    "measure": "ruler",
    "cover": "sheet",
    "dry": "towel",
    "decorate": "ribbon",
}
HARMFUL_VERBS = (
    "steal",
    "smash",
    "burn",
    "wreck",
    "scratch",
    "topple",
    "sabotage",
    "damage",
)
OBJECTS = (
    "car",
    "bike",
    "fence",
    "door",
    "window",
    "bench",
    "boat",
    "shed",
    "statue",
    "lamp",
)

# Prompts. In every table below `{}` stands for a word of the tables above.
HUMAN = "\n\nHuman:"
ASSISTANT = "\n\nAssistant:"
GREETINGS = ("hello .", "good morning .", "hope you are well .")
INTRODUCTION = "my name is {} ."
LIST_REQUESTS = ("please name {} {}", "i need {} {}", "give me {} {}")
LIST_EXCEPTION = "but not {}"
KIND_REQUEST = "what kind of thing is {} ?"
CHOICE_REQUEST = "i like {} . should i take {} or {} ?"
HOW_REQUEST = "how can i {} the {} ?"
SMALL_TALK = (
    ("can you help me ?", "yes , what do you need ?"),
    ("are you there ?", "yes , i am here ."),
    ("do you like music ?", "yes , music is good ."),
)

# Responses, slot by slot.
POLITE_OPENERS = (
    "thank you for asking .",
    "that is a good question .",
    "i am glad you asked .",
    "nice to hear from you .",
)
RUDE_OPENERS = (
    "that is a silly question .",
    "why do you bother me ?",
    "not you again .",
    "what a waste of time .",
)
ADDRESS = "{} ,"
KIND_ANSWER = "{} is one of the {} ."
CHOICE_ANSWER = "i would pick {} ."
HOW_ANSWER = "use a {} to {} the {} ."
REFUSALS = ("i can not help with that .", "i will not do that .")
REASONS = ("it could hurt someone .", "it is against the law .")
REDIRECTIONS = ("please talk to the owner first .", "please find a better way .")
HEDGES = ("i am not sure about that .", "it is hard to say .")
POLITE_CLOSERS = (
    "i hope this helps .",
    "have a lovely day .",
    "please ask me any time .",
    "let me know if you need more .",
)
RUDE_CLOSERS = (
    "now leave me alone .",
    "do not ask me again .",
    "even a child knows this .",
    "look it up yourself .",
)
FILLERS = (
    "as everyone can see .",
    "it goes without saying .",
    "there is so much to say here .",
    "in other words and so on .",
    "at the end of the day it is what it is .",
)
WRONG_TO = "it is wrong to {} the {} ."


def _texts() -> Iterable[str]:
    yield from CATEGORIES
    yield from (*ITEMS, *NAMES, *COUNTS, *AIDS, *AIDS.values(), *HARMFUL_VERBS, *OBJECTS)
    yield from (*GREETINGS, INTRODUCTION, *LIST_REQUESTS, LIST_EXCEPTION, KIND_REQUEST)
    yield from (CHOICE_REQUEST, HOW_REQUEST)
    for exchange in SMALL_TALK:
        yield from exchange
    yield from (*POLITE_OPENERS, *RUDE_OPENERS, ADDRESS, ", and .")
    yield from (KIND_ANSWER, CHOICE_ANSWER, HOW_ANSWER, *REFUSALS, *REASONS, *REDIRECTIONS)
    yield from (*HEDGES, *POLITE_CLOSERS, *RUDE_CLOSERS, *FILLERS, WRONG_TO)


def words_of(*texts: str) -> tuple[str, ...]:
    """The different words of texts as token pieces, with their leading space."""
    return tuple(f" {w}" for w in dict.fromkeys(" ".join(texts).split()) if w != "{}")


WORLD_VOCABULARY: tuple[str, ...] = (HUMAN, ASSISTANT, *words_of(*_texts()))
"""Every token piece that texts of the world are made of."""
