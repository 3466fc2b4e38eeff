"""Pretrained models as policies of a study: what training reads, and which tokenizers there are."""

import json
from collections.abc import Iterable

from weakteach.artifacts.identity import jsonable
from weakteach.models.size import layer_parameters
from weakteach.models.spec import Model, Tokenizer, tokenizer_of
from weakteach.preferences.pair import DataError
from weakteach.steps.data import Converted, Dequantized, Policy, Pretrained


def name_of(policy: Policy) -> str:
    """What a model is called: its label."""
    return str(policy)


def refuse_namesakes(policies: Iterable[Policy]) -> None:
    """Raises DataError if two different models are called alike: results would take them for one,
    since a local model is called by its folder or file."""
    named: dict[str, Policy] = {}
    for one in policies:
        other = named.setdefault(name_of(one), one)
        if one != other:
            places = " and ".join(model_of(model).location for model in (other, one))
            raise DataError(
                f"Two different models are called {name_of(one)} ({places}), and results tell "
                "models apart by their names: rename a folder or file"
            )


def model_of(policy: Policy) -> Model:
    """The model that a policy of a grid is, or is made of. Raises ValueError for another step."""
    match policy:
        case Model():
            return policy
        case Converted() | Dequantized() | Pretrained():
            return policy.model
        case _:
            raise ValueError(f"{policy} is no pretrained model")


def sizes_of(policies: Iterable[Policy]) -> dict[str, int]:
    """The number of parameters in each model's layers, by the model's name, where it is known."""
    sizes = {name_of(one): layer_parameters(model_of(one)) for one in dict.fromkeys(policies)}
    return {name: size for name, size in sizes.items() if size is not None}


def policy_of(model: Model, documents: int) -> Policy:
    """What training and labeling read: the model itself, its plain form if it is a GGUF or
    pickled, or the step that pretrains it on as many documents if it is embedded but not shipped.
    """
    if model.is_untrained:
        return Pretrained(model.label, documents)
    if model.is_pickled:
        return Converted(model)
    return Dequantized(model) if model.is_gguf else model


def tokenizers_of(*models: Policy) -> tuple[Tokenizer | Dequantized, ...]:
    """The different tokenizers of the models, sorted, so that the order of the models does not
    matter. Raises ValueError for a policy that is no pretrained model."""
    found: set[Tokenizer | Dequantized] = set()
    for model in models:
        match model:
            case Dequantized():
                found.add(model)
            case Pretrained() | Converted():
                found.add(tokenizer_of(model.model))
            case Model():
                found.add(tokenizer_of(model))
            case _:
                raise ValueError(f"{model} is no pretrained model")
    return tuple(sorted(found, key=lambda item: json.dumps(jsonable(item))))
