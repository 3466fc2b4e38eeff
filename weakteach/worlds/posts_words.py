"""The words and phrases of the posts. Names, objects and fillers are those of the world."""

from weakteach.worlds.world_words import CATEGORIES, FILLERS, HEDGES, NAMES, OBJECTS, words_of

POST = "\n\nPost:"
SUMMARY = "\n\nTL;DR:"


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


RELATIONS = _words("friend sister brother cousin neighbor boss roommate teacher")
# What a post may tell. In every template below `{}` stands for a word of these tables.
ACTS = _words(
    "cleaned painted fixed polished measured covered dried decorated "
    "stole smashed burned wrecked scratched toppled sabotaged damaged"
)
PLACES = _words("park school market station library beach office garden")
DAYS = _words("monday tuesday wednesday thursday friday saturday sunday")
CAUSES = _words("rain noise heat party storm traffic smell bet")
FEELINGS = _words("glad sorry sad angry proud scared calm tired")
PLANS = _words("wait leave pay call apologize laugh argue help")

# Sentences of a post that tell a fact: who did what, and details.
EVENT = "my {} {} {} the {} ."
DETAILS: dict[str, tuple[str, ...]] = {
    "place": ("it was at the {} .", "i saw it at the {} ."),
    "day": ("it was on {} .", "all this was on {} ."),
    "cause": ("it was because of the {} .", "i blame the {} ."),
    "feeling": ("my {} is now {} .", "now my {} is {} ."),
    "plan": ("should i {} ?", "is it better to {} ?"),
}
VALUES: dict[str, tuple[str, ...]] = {
    "who": NAMES,
    "did": ACTS,
    "thing": OBJECTS,
    "place": PLACES,
    "day": DAYS,
    "cause": CAUSES,
    "feeling": FEELINGS,
    "plan": PLANS,
    "drink": CATEGORIES["drinks"],
}
# Sentences beside the point; most name a word of the same kind as a fact.
DECOYS: dict[str, str] = {
    "who": "{} was there too .",
    "did": "i never {} it .",
    "thing": "i like the {} .",
    "place": "i live near the {} .",
    "day": "i write this on {} .",
    "cause": "i do not mind the {} .",
    "feeling": "i was {} at first .",
    "plan": "i will not {} .",
    "drink": "i had {} before .",
}
GREETINGS = ("hello .", "hello everyone .")
THANKS = ("thank you for reading .", "sorry for the long post .")

# Summaries, part by part: the statement, and what may follow it in this order.
STATEMENT = "{} {} the {}"
PARTS: dict[str, str] = {
    "place": "at the {}",
    "day": "on {}",
    "cause": "because of the {}",
    "feeling": "and is now {}",
}
QUESTION = "not sure whether to {} ."
BRISK_OPENERS = ("in short :", "to sum up :", "the point is this :")
RUDE_OPENERS = (
    "who cares about this ?",
    "not this again .",
    "what a waste of time .",
    "nobody asked for this .",
)
KIND_CLOSERS = ("i hope it ends well .", "take care .", "all the best .")
RUDE_CLOSERS = (
    "what a boring post .",
    "do not write again .",
    "even a child knows better .",
    "look for help elsewhere .",
)

POSTS_VOCABULARY: tuple[str, ...] = (
    POST,
    SUMMARY,
    *words_of(
        *RELATIONS,
        *(word for words in VALUES.values() for word in words),
        EVENT,
        *(text for texts in DETAILS.values() for text in texts),
        *DECOYS.values(),
        *GREETINGS,
        *THANKS,
        STATEMENT,
        *PARTS.values(),
        QUESTION,
        *BRISK_OPENERS,
        *RUDE_OPENERS,
        *HEDGES,
        *FILLERS,
        *KIND_CLOSERS,
        *RUDE_CLOSERS,
    ),
)
"""Every token piece that texts of the posts are made of."""
