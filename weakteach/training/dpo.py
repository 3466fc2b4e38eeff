"""Direct preference optimization, the starting model being the reference."""

from typing import Any

from datasets import Dataset
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from weakteach.training.recipes import DpoRecipe
from weakteach.training.worker import (
    TrainingJob,
    load_preferences,
    load_start,
    lora_config,
    train_and_save,
    trainer_arguments,
)


class TokenizedDpoTrainer(DPOTrainer):
    """TRL's trainer on pairs that are tokenized already, by the one tokenization of the project."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        missing = {"prompt_ids", "chosen_ids", "rejected_ids"} - set(dataset.column_names)
        if missing:
            raise ValueError(f"The data set lacks {', '.join(sorted(missing))}")
        return dataset


def train_dpo(config: dict[str, Any]) -> dict[str, Any]:
    """Train on ``config["job"]``, a TrainingJob with a DpoRecipe. Returns facts for the record."""
    job: TrainingJob = config["job"]
    return train_and_save(dpo_trainer(job), job)


def dpo_trainer(job: TrainingJob) -> TokenizedDpoTrainer:
    """The model that training starts from is the reference."""
    recipe: DpoRecipe = job.recipe
    model, tokenizer = load_start(job)
    tokens = load_preferences(job, tokenizer)
    dataset = Dataset.from_dict(
        {
            "prompt_ids": [pair.prompt for pair in tokens],
            "chosen_ids": [pair.response_1 for pair in tokens],
            "rejected_ids": [pair.response_2 for pair in tokens],
        }
    )
    return TokenizedDpoTrainer(
        model=model,
        # With adapters the reference is the model without them; else it is loaded a second time.
        ref_model=None if recipe.lora else load_start(job)[0],
        args=DPOConfig(
            **trainer_arguments(job, recipe.schedule),
            beta=recipe.beta,
            loss_type=["sigmoid"],
        ),
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=lora_config(recipe.lora),
    )
