"""TRL's trainers on pairs that stand in one row without padding, each prompt once.

The losses are TRL's own. Instead of the model they get a callable, which calls the model on pairs
laid out so (``pair_layout``) and returns its answers in the shape that they expect. An update takes
all its pairs at once. They go through the model in parts that are bounded by tokens, so that memory
follows tokens; a part counts as much as it has pairs, so that the result does not depend on the
cut. Nor does it depend on the number of workers: all see the same updates, and each takes its share
of the pairs, which may be none.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate.data_loader import BatchSamplerShard
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer
from transformers.modeling_outputs import SequenceClassifierOutput
from trl.trainer.utils import FusedCausalLMOutput, add_fused_lm_head

from weakteach.artifacts.errors import StepError
from weakteach.models.pair_attention import attending_in_pairs
from weakteach.models.pair_layout import Batch, cut_by_tokens, lay_out
from weakteach.models.probe import why_separate
from weakteach.models.resources import Resources
from weakteach.models.tokens import PairTokens
from weakteach.training.worker import from_all, rank, world_size

# Metrics of a token's distribution over the vocabulary; each costs a pass over the logits.
TOKEN_METRICS = {"entropy", "mean_token_accuracy", "logits/chosen", "logits/rejected"}
# Metrics that are no means over pairs: their value for one part says nothing about the update, nor
# their value for a resumed run about the whole run.
NO_MEANS = {"num_tokens", "min_reward", "max_reward"}


@dataclass(frozen=True)
class Part:
    """The pairs of an update that go through the model at once. ``weight`` is their share of that
    update's pairs, times the number of workers, over whom gradients are averaged; ``rows`` are
    their numbers among all pairs.

    A part of weight 0 counts nothing: its pair stands in on a worker that has none, since workers
    add up their gradients together."""

    rows: list[int]
    batch: Batch
    weight: float


if TYPE_CHECKING:  # stands for any of TRL's trainers, which share more than their type says

    class _Trainer(Trainer):
        def __getattr__(self, name: str) -> Any: ...

        def compute_loss(self, *args: Any, **options: Any) -> Any: ...

        def part_inputs(self, part: "Part") -> dict[str, torch.Tensor]:
            """What TRL's loss reads of a batch, beside the model's answer."""

        def answer(self, model: Any, part: "Part", **options: Any) -> Any:
            """What the model says of a part, in the shape that TRL's loss expects."""
else:
    _Trainer = object


class PackedTraining(_Trainer):
    """A base class to put before one of TRL's trainers. A subclass of both adds how the loss reads
    a part (``part_inputs``, ``answer``). The data set consists of the numbers of the ``pairs``."""

    def __init__(
        self, pairs: list[PairTokens], resources: Resources, model: PreTrainedModel, **options: Any
    ) -> None:
        self.pairs = pairs
        self.resources = resources
        # Asked before the model has adapters, which may have dropout.
        self.packed = not why_separate(model)
        rows = Dataset.from_dict({"row": range(len(pairs))})
        super().__init__(model=model, train_dataset=rows, data_collator=self.collate, **options)

    @property
    def plain_model(self) -> PreTrainedModel:
        """The model below its adapters, if it has any."""
        model: Any = self.model
        return cast(PreTrainedModel, getattr(model, "get_base_model", lambda: model)())

    def collate(self, examples: list[dict[str, int]]) -> dict[str, torch.Tensor]:
        """The worker's share of an update's pairs, and how many there are on all workers."""
        mine = [example["row"] for example in examples[rank() :: world_size()]]
        return {
            "rows": torch.tensor(mine, dtype=torch.long),
            "pairs": torch.tensor(len(examples)),
        }

    def get_train_dataloader(self) -> DataLoader[Any]:
        if self.data_collator != self.collate:
            raise StepError(
                f"The data collator was replaced by {type(self.data_collator).__name__}: leave it "
                "as it is, since a batch holds the numbers of pairs, by which their weights are "
                "found"
            )
        sampler: Any = self._get_train_sampler
        loader = self._get_dataloader(
            cast(Dataset, self.train_dataset),
            "Training",
            self._train_batch_size * world_size(),
            sampler,
            is_training=True,
        )
        if world_size() > 1:
            # accelerate would give each worker updates of its own, and fill up the last one with
            # pairs that have been.
            shared = loader.batch_sampler
            assert isinstance(shared, BatchSamplerShard)
            shared.num_processes, shared.process_index, shared.even_batches = 1, 0, False
        return cast(DataLoader[Any], loader)

    def scale(self, loss: torch.Tensor, part: Part) -> torch.Tensor:
        """The part's contribution to the loss of the update."""
        return loss * part.weight

    def train(self, *args: Any, **options: Any) -> Any:
        with attending_in_pairs(self.plain_model) if self.packed else nullcontext():
            return super().train(*args, **options)

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        loss = torch.zeros((), device=self.args.device)
        metrics: dict[str, float] = defaultdict(float)
        parts = self._cut(inputs["rows"].tolist())
        sharded = self.is_fsdp_enabled
        # Workers gather each other's shards in every part.
        parts = in_parts(parts, max(1, *from_all(len(parts))) if sharded else 1)
        share = world_size() / int(inputs["pairs"])
        *earlier, last = parts
        for rows, is_last in [*((rows, False) for rows in earlier), (last, True)]:
            through = rows or [0]
            batch = lay_out(
                [self.pairs[row] for row in through],
                self.args.device,
                self.packed,
                self.resources.attention,
                self.plain_model.config.get_text_config().pad_token_id,
            )
            part = Part(through, batch, len(rows) * share)
            log, self._metrics["train"] = self._metrics["train"], defaultdict(list)
            # Workers add up their gradients after the last part alone. With shards they do so after
            # each part: until then, each would hold the gradients of the whole model.
            alone = not (is_last or sharded)
            with self.accelerator.no_sync(model) if alone else nullcontext():
                loss += super().training_step(model, {"part": part}, num_items_in_batch)
            for name, (value,) in self._kept(self._metrics["train"]):
                metrics[name] += value * part.weight
            self._metrics["train"] = log
        self._log_metrics(metrics)
        return loss

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        part: Part = inputs["part"]

        def answer(**options: Any) -> Any:
            return self.answer(model, part, **options)

        read = self.part_inputs(part)
        with _gathering_nothing(self.accelerator):
            loss = super().compute_loss(answer, read, num_items_in_batch=num_items_in_batch)
        return self.scale(loss, part) if part.weight else 0 * loss

    def _cut(self, rows: list[int]) -> list[list[int]]:
        pairs = [self.pairs[row] for row in rows]
        parts = cut_by_tokens(pairs, self.resources.train_tokens, self.packed)
        return [[rows[number] for number in part] for part in parts]

    def _log_metrics(self, metrics: dict[str, float]) -> None:
        """Log the metrics of an update: their mean over the workers, whose parts have weights."""
        values = torch.tensor(list(metrics.values()), device=self.args.device)
        if world_size() > 1:
            torch.distributed.all_reduce(values)
        for name, value in zip(metrics, (values / world_size()).tolist(), strict=True):
            self._metrics["train"][name].append(value)

    def _kept(self, metrics: dict[str, list[float]]) -> Iterator[tuple[str, list[float]]]:
        left_out = NO_MEANS if self.resources.token_metrics else NO_MEANS | TOKEN_METRICS
        return ((name, values) for name, values in metrics.items() if name not in left_out)

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # nobody reads it, and it would be counted anew with each update

    def create_model_card(self, *_: Any, **__: Any) -> None:
        pass  # the artifact's record says more


def in_parts(parts: list[list[int]], count: int) -> list[list[int]]:
    """The same rows in at least ``count`` parts: the largest are halved, and where there are too
    few rows, there are parts without any."""
    parts = list(parts)
    while len(parts) < count and any(len(part) > 1 for part in parts):
        largest = max(range(len(parts)), key=lambda number: len(parts[number]))
        part = parts[largest]
        parts[largest : largest + 1] = [part[: len(part) // 2], part[len(part) // 2 :]]
    return parts + [[]] * (count - len(parts))


@contextmanager
def _gathering_nothing(accelerator: Any) -> Iterator[None]:
    """Keep TRL from gathering metrics with each part: workers have different numbers of parts. They
    are gathered once per update instead."""

    def own(value: torch.Tensor) -> torch.Tensor:
        return value

    accelerator.gather = accelerator.gather_for_metrics = own
    try:
        yield
    finally:  # brings back the methods of its class
        del accelerator.gather, accelerator.gather_for_metrics


class PackedLanguageModel(PackedTraining):
    """Training of a language model, whose head is asked for log-probabilities at scored tokens
    alone, and whose router, in a mixture of experts, is trained by the loss of pairs alone."""

    def __init__(self, pairs: list[PairTokens], resources: Resources, **options: Any) -> None:
        super().__init__(pairs, resources, **options)
        # The auxiliary loss of a mixture of experts is one of all tokens of an update. Sums over
        # its parts would depend on the cut.
        self.aux_loss_enabled = False
        config = self.plain_model.config.get_text_config()
        if hasattr(config, "output_router_logits"):
            config.output_router_logits = False
        if not resources.token_metrics:
            add_fused_lm_head(self.plain_model)

    def answer(self, model: Any, part: Part, **options: Any) -> FusedCausalLMOutput:
        """The model's answer with fields of shape [1, scores]; those that the head was not asked
        for are zero."""

        def pick(_: Any, __: Any, output: Any) -> Any:
            hidden = output.last_hidden_state.flatten(0, 1)
            output.last_hidden_state = hidden.index_select(0, part.batch.predictors)[None]
            return output

        handle = self.plain_model.base_model.register_forward_hook(pick)
        try:
            out: FusedCausalLMOutput = model(
                **part.batch.inputs,
                shift_labels=part.batch.targets[None],
                fused_lm_head=True,
                use_cache=False,
            )
        finally:
            handle.remove()
        nothing = torch.zeros_like(part.batch.targets[None], dtype=torch.float32)
        for name in ("entropy", "mean_logits"):
            if getattr(out, name) is None:
                setattr(out, name, nothing)
        if out.is_top1 is None:
            out.is_top1 = nothing.bool()
        return out


class PackedRewardModel(PackedTraining):
    """Training of a model with a scalar head, which is read where the sequences end."""

    def answer(self, model: Any, part: Part, **_: Any) -> SequenceClassifierOutput:
        """Logits of shape [2 * pairs, 1], those of the chosen responses first."""
        read: list[torch.Tensor] = []

        def note(_: Any, __: Any, output: torch.Tensor) -> None:
            read.append(output.flatten(0, 1)[part.batch.ends.flatten()])

        handle = self.plain_model.score.register_forward_hook(note)  # type: ignore[union-attr]
        try:
            model(**part.batch.inputs, use_cache=False)
        finally:
            handle.remove()
        return SequenceClassifierOutput(logits=read[0])
